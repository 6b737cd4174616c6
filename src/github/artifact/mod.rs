//! Workflow artifacts: the Actions results service, as a client.
//!
//! The form of each request is the one that GitHub's service (version 4 rules), nektos/act, Gitea and Forgejo all accept:
//! snake_case fields, version 4, no `mime_type`, signed addresses used as they came, blocks one after another with a
//! length and ids of one length, then the list of blocks. It was run against nektos/act and against recordings of the
//! official client's requests; github.com itself was never part of a test.
//!
//! The runtime token is read from the environment, is sent in one header, and stands in no error, log or argument.

mod client;
mod job;
mod limits;
mod readback;
mod retry;
mod token;
mod upload;
mod wire;

pub use client::{Service, Timeouts};
pub use job::Job;
pub use limits::{ARTIFACTS_PER_JOB, check_name, expiry, retention};
pub use readback::{RestArtifact, compare_rest};
pub use retry::{Backoff, Clock, SystemClock};
pub use token::{BackendIds, RuntimeToken};
pub use upload::{Notice, Proof, Request, Uploaded, upload};
