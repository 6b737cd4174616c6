//! Files and bytes, one way to do each: digest, canonical JSON, atomic write, containment.

mod atomic;
mod beneath;
mod canonical;
mod containment;
mod digest;
mod sniff;
mod visible;
mod yaml;

pub use atomic::{append_whole, write_atomic, write_json};
pub use beneath::{Draft, DraftFolder, EntryKind, RootPath};
pub use canonical::{compact, jcs, pretty_sorted};
pub use containment::{contains, normalise};
pub use digest::{Sha256Digest, Sha256Stream, sha256, sha256_file, sha256_reader};
pub use sniff::unlike_text;
pub use visible::{acts_on_a_screen, quoted, visible};
pub use yaml::{nearest, parse_yaml};
