//! The report that people read: one HTML page without a network, and its plots as files for papers.
//!
//! [`gather`] fills a [`Page`] from a table and its comparisons, [`plot`] draws from it, [`html`] writes the page. The same
//! input gives the same bytes: no date, no random name, no font of the machine.
//!
//! Whatever comes from outside passes [`escape`]; what the page's script shows, it sets as text. The page's own policy
//! forbids every script and style but the two it was written with, by their digests, and any request.

pub mod escape;
pub mod gather;
pub mod grid;
pub mod html;
pub mod page;
pub mod palette;
pub mod plot;
pub mod raster;
pub mod scale;
pub mod svg;

pub use gather::{Gathered, gather};
pub use page::Page;
