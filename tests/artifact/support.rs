//! A client against a [`Server`](crate::server::Server), with a clock that never waits.

use crate::server::Server;
use assay_gates::error::Result;
use assay_gates::github::artifact::{
    Backoff, Clock, Notice, Request, RuntimeToken, Service, Timeouts, Uploaded, upload,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::path::Path;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

pub const NAME: &str = "assay-runner-delegated-proof-pack-42";

/// A token as a runner gives it, for run 11 and job 22.
pub fn token() -> RuntimeToken {
    let claims = URL_SAFE_NO_PAD.encode(r#"{"scp":"Actions.ExampleScope Actions.Results:11:22"}"#);
    RuntimeToken::new(format!("e30.{claims}.secretsignature"))
}

/// Remembers what it was asked to wait for.
#[derive(Default)]
pub struct TestClock(pub Mutex<Vec<Duration>>);

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_255_200)
    }

    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.0.lock().unwrap().push(time);
        Box::pin(std::future::ready(()))
    }

    fn jitter(&self) -> f64 {
        0.0
    }
}

pub fn request(zip: &Path) -> Request {
    Request { name: NAME.to_owned(), zip: zip.to_owned(), retention_days: None, overwrite: false }
}

/// What an upload gave, and everything that it said meanwhile.
pub struct Outcome {
    pub result: Result<Uploaded>,
    pub notices: Vec<Notice>,
    pub slept: Vec<Duration>,
}

impl Outcome {
    /// Everything that a person or a log could see.
    pub fn visible(&self) -> String {
        let said = self.notices.iter().filter(|notice| !matches!(notice, Notice::Mask(_)));
        let mut text: String = said.map(|notice| format!("{notice:?}\n")).collect();
        if let Err(error) = &self.result {
            text.push_str(&format!("{error}\n{error:?}\n{:?}\n", error.advice()));
        }
        text
    }
}

pub fn run(server: &Server, request: &Request, timeouts: Timeouts) -> Outcome {
    let service = Service::new(&format!("{}/some/path/", server.address), &token(), timeouts).unwrap();
    let clock = TestClock::default();
    let mut notices = Vec::new();
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(upload(&service, request, &Backoff::default(), &clock, &mut |notice| notices.push(notice)));
    Outcome { result, notices, slept: clock.0.into_inner().unwrap() }
}

/// Writes `bytes` that don't repeat to a file.
pub fn zip_of(folder: &Path, bytes: usize) -> std::path::PathBuf {
    let mut content = vec![0; bytes];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for byte in &mut content {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    }
    let path = folder.join("pack.zip");
    std::fs::write(&path, content).unwrap();
    path
}
