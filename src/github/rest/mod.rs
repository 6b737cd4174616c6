//! The REST API, through octocrab with structs of our own.
//!
//! octocrab's models refuse answers that GitHub really gives (null names, new enum values), its downloads neither
//! stream nor look at the status, its default retry repeats a POST, and it has no timeouts; so requests go through its
//! raw methods and all of that is decided here. A GET is repeated when that is safe and useful; a POST never is.

mod client;
mod dispatch;
mod download;
mod model;
mod runs;
mod target;
mod watch;

pub use client::{Client, Posted, Settings};
pub use dispatch::{Dispatch, nonce};
pub use model::{
    Annotation, Artifact, Branch, Commit, CommitStatus, CommitText, Compare, CompareFile, Job, Label, Run,
    Runner, Step,
};
pub use runs::RunQuery;
pub use target::{RunTarget, Target, api_of_host, origin, repository_of_remote, token};
pub use watch::Look;
