//! Logs and artifacts, streamed to disk. Their addresses redirect to a blob host that gets no token.

use super::client::{Client, unreachable};
use crate::error::{Code, Error, Result};
use std::path::Path;
use tokio::io::AsyncWriteExt;

const TRIES: u32 = 4;

impl Client {
    /// Streams the answer to GET `path` into `to`, at most `limit` bytes; gives the length. A download that breaks off
    /// begins again.
    ///
    /// # Errors
    /// As [`Client::get`]; `Io` for the file.
    pub async fn download(&self, path: &str, to: &Path, limit: u64) -> Result<u64> {
        let mut last = None;
        for attempt in 0..TRIES {
            let mut response = match self.open(path, attempt).await? {
                Ok(response) => response,
                Err(error) => {
                    last = Some(error);
                    continue;
                }
            };
            let announced = response.content_length();
            let io = |error| Error::io("cannot write", to, error);
            let mut file = tokio::fs::File::create(to).await.map_err(io)?;
            let mut length = 0u64;
            loop {
                match response.chunk().await {
                    Ok(Some(chunk)) => {
                        length += chunk.len() as u64;
                        if length > limit {
                            let large = format!("GET {path}: expected at most {limit} bytes");
                            return Err(Error::new(Code::GithubAnswer, large));
                        }
                        file.write_all(&chunk).await.map_err(io)?;
                    }
                    Ok(None) => {
                        file.flush().await.map_err(io)?;
                        if announced.is_some_and(|announced| announced != length) {
                            last = Some(unreachable(&format!(
                                "GET {path}: {length} bytes came of {announced:?}"
                            )));
                            break;
                        }
                        return Ok(length);
                    }
                    Err(error) => {
                        last = Some(unreachable(&format!("GET {path}: {error}")));
                        break;
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| unreachable("no answer")))
    }
}
