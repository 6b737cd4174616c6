//! An invocation as one self-contained page: no script, no fetch, readable as text, light and dark.

mod data;
mod html;
mod timeline;

pub use data::{Document, Gap, read};
pub use html::render;
