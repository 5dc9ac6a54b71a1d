//! expand
/// x
pub fn expand() {}
