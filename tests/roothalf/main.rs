//! The border between the runner's user and root: the real kernel, the real sudo with the drop-in that `host install`
//! writes, a real second user. Everything that the tests change of the host stands in a mount namespace of their own.

#![cfg(all(feature = "capture", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

#[path = "../support/mod.rs"]
mod support;

mod builds;
mod catalogue;
mod checkout;
mod door;
mod environment;
mod evidence;
mod invocation;
mod race;
mod stage;
mod stops;
