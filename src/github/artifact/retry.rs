//! Waiting and trying again, with the clock as an argument.

use crate::error::{Code, Error};
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

/// Time and chance, so that a test of a long outage takes no time.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> SystemTime;
    /// Waits.
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
    /// A fraction from 0 to 1 that spreads the attempts of many clients.
    fn jitter(&self) -> f64;
}

/// The machine's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep(time))
    }

    fn jitter(&self) -> f64 {
        // Without randomness the attempts only fall together; that is no reason to fail.
        getrandom::u32().map_or(0.5, |bits| f64::from(bits) / f64::from(u32::MAX))
    }
}

/// How often, and how long between.
#[derive(Clone, Debug)]
pub struct Backoff {
    /// Attempts in all.
    pub attempts: u32,
    /// Before the second attempt.
    pub first: Duration,
    /// Longest of our own choosing.
    pub most: Duration,
    /// Longest that a server may ask for; beyond it the upload ends and says until when.
    pub server_most: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            attempts: 7,
            first: Duration::from_secs(3),
            most: Duration::from_secs(60),
            server_most: Duration::from_secs(15 * 60),
        }
    }
}

/// Why an attempt gave nothing.
#[derive(Debug)]
pub enum Failure {
    /// Worth another attempt, after `after` when the server said so.
    Again { why: String, after: Option<Duration> },
    /// The service says that it is there already.
    Conflict { why: String },
    /// The service says that it is not there.
    Missing { why: String },
    /// Another attempt would end the same way.
    Final(Error),
}

impl Failure {
    /// In words.
    pub fn why(&self) -> String {
        match self {
            Failure::Again { why, .. } | Failure::Conflict { why } | Failure::Missing { why } => why.clone(),
            Failure::Final(error) => error.message().to_owned(),
        }
    }

    /// As the end of `what`.
    pub fn into_error(self, what: &str) -> Error {
        match self {
            Failure::Final(error) => error,
            Failure::Again { why, .. } => Error::new(Code::ArtifactGaveUp, format!("{what}: {why}")).hint(
                "the addresses that must be reachable: *.actions.githubusercontent.com and *.blob.core.windows.net; HTTPS_PROXY and NO_PROXY are honoured",
            ),
            Failure::Conflict { why } | Failure::Missing { why } => {
                Error::new(Code::ArtifactRefused, format!("{what}: {why}"))
            }
        }
    }
}

impl Backoff {
    /// How long to wait before attempt `next` (from 2 on).
    pub fn pause(&self, next: u32, asked: Option<Duration>, clock: &dyn Clock) -> Duration {
        if let Some(asked) = asked {
            return asked;
        }
        let grown =
            self.first.mul_f64(1.5_f64.powi(i32::try_from(next.saturating_sub(2)).unwrap_or(i32::MAX)));
        grown.min(self.most).mul_f64(1.0 + clock.jitter() / 2.0)
    }

    /// Waits before attempt `next`, or gives the failure back when there is none.
    pub async fn wait(
        &self,
        what: &str,
        next: u32,
        failure: Failure,
        clock: &dyn Clock,
        notice: &mut dyn FnMut(&str),
    ) -> Result<(), Failure> {
        let Failure::Again { why, after } = failure else { return Err(failure) };
        if next > self.attempts {
            return Err(Failure::Again { why: format!("{why}, after {} attempts", self.attempts), after });
        }
        if let Some(after) = after.filter(|after| *after > self.server_most) {
            let why = format!("{why}; the server asks to wait for {} s", after.as_secs());
            return Err(Failure::Again { why, after: Some(after) });
        }
        let pause = self.pause(next, after, clock);
        notice(&format!(
            "{what}: {why}; attempt {next} of {} in {:.1} s",
            self.attempts,
            pause.as_secs_f64()
        ));
        clock.sleep(pause).await;
        Ok(())
    }

    /// Runs `attempt` until it gives something, fails for good, or all attempts are used.
    pub async fn run<T>(
        &self,
        what: &str,
        clock: &dyn Clock,
        notice: &mut dyn FnMut(&str),
        mut attempt: impl AsyncFnMut() -> Result<T, Failure>,
    ) -> Result<(T, u32), Failure> {
        let mut number = 1;
        loop {
            match attempt().await {
                Ok(value) => return Ok((value, number)),
                Err(failure) => {
                    number += 1;
                    self.wait(what, number, failure, clock, notice).await?;
                }
            }
        }
    }
}
