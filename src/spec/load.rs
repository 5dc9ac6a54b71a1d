//! load
/// x
pub fn load() {}
