//! A recording stand-in for the results service, its blob store and the REST API, on 127.0.0.1, with faults on demand.
//!
//! What comes over REST is whole and valid by GitHub's own description. It keeps every request as it arrived. Blocks are assembled by the block list, as Azure does, or appended as they come,
//! as nektos/act does; a client has to be right for both.

use crate::answers;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

/// A request as it arrived. Of a block only length and digest are kept when `keep_bodies` is off.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub method: String,
    /// Without the query.
    pub path: String,
    pub query: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    pub length: u64,
}

impl Recorded {
    /// `CreateArtifact`, `block`, `blocklist`, …: what a request is for.
    pub fn step(&self) -> String {
        if self.path.contains("/twirp/") {
            return self.path.rsplit('/').next().unwrap().to_owned();
        }
        match self.query.split('&').find_map(|pair| pair.strip_prefix("comp=")) {
            Some(comp) => comp.to_owned(),
            None => format!("{} {}", self.method, self.path),
        }
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What goes wrong with one request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection ends before anything is done.
    Reset,
    /// All is done, and the answer never comes.
    Lost,
    /// Another status, with headers and a body; nothing is done.
    Answer(u16, &'static str, &'static str),
    /// All is done, and half an answer comes.
    Truncated,
    /// Nothing is done and no answer comes while the client waits.
    Silent,
    /// The blob that is stored is not the one that was sent.
    Corrupt,
}

/// How the server differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Names are taken once, blocks are ordered by the list, the listing has digests.
    Github,
    /// Names are replaced, blocks are appended, the listing has no digests and other sizes; no list before an artifact.
    Act,
}

#[derive(Default)]
struct Blob {
    name: String,
    id: u64,
    blocks: BTreeMap<String, Vec<u8>>,
    content: Vec<u8>,
    hasher: Sha256,
    length: u64,
    finalized: bool,
}

#[derive(Default)]
struct State {
    requests: Vec<Recorded>,
    faults: Vec<(usize, Fault)>,
    blobs: Vec<Blob>,
    next: u64,
}

pub struct Server {
    pub address: String,
    kind: Kind,
    keep_bodies: bool,
    signature: &'static str,
    state: Mutex<State>,
}

pub const SIGNATURE: &str = "c2lnbmF0dXJl%2Bp4ss+w=";

impl Server {
    pub fn start(kind: Kind) -> Arc<Self> {
        Self::start_keeping(kind, true)
    }

    pub fn start_keeping(kind: Kind, keep_bodies: bool) -> Arc<Self> {
        Self::start_with(kind, keep_bodies, SIGNATURE)
    }

    /// With a signature that a client may write anew: the official one does, and loses what is not plain.
    pub fn start_plain() -> Arc<Self> {
        Self::start_with(Kind::Github, true, "c2lnbmF0dXJl")
    }

    fn start_with(kind: Kind, keep_bodies: bool, signature: &'static str) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = Arc::new(Self { address, kind, keep_bodies, signature, state: Mutex::default() });
        let accepting = Arc::clone(&server);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let serving = Arc::clone(&accepting);
                // A client that goes away mid-request is part of the game.
                std::thread::spawn(move || serving.serve(stream.unwrap()));
            }
        });
        server
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Lets request number `index` (from 0) go wrong.
    pub fn fault(&self, index: usize, fault: Fault) {
        self.state().faults.push((index, fault));
    }

    pub fn requests(&self) -> Vec<Recorded> {
        self.state().requests.clone()
    }

    pub fn steps(&self) -> Vec<String> {
        self.requests().iter().map(Recorded::step).collect()
    }

    /// Content of a finalized artifact.
    pub fn stored(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.blobs.iter().find(|blob| blob.name == name && blob.finalized).map(|blob| blob.content.clone())
    }

    fn serve(&self, stream: TcpStream) {
        let mut writer = stream.try_clone().unwrap();
        let mut reader = BufReader::new(stream);
        while let Some(request) = self.read(&mut reader) {
            let fault = {
                let mut state = self.state();
                state.requests.push(request.clone());
                let number = state.requests.len() - 1;
                state.faults.iter().find(|(at, _)| *at == number).map(|(_, fault)| fault.clone())
            };
            let sent = match fault {
                Some(Fault::Reset) => return reset(&writer),
                Some(Fault::Lost) => {
                    let _done = self.handle(&request, false);
                    return reset(&writer);
                }
                Some(Fault::Answer(status, headers, body)) => {
                    respond(&mut writer, status, headers, body.as_bytes())
                }
                Some(Fault::Truncated) => {
                    let answer = self.handle(&request, false).map_or_else(Vec::new, |(_, body)| body);
                    let _gone =
                        write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len() + 10);
                    let _gone = writer.write_all(&answer[..answer.len() / 2]);
                    return;
                }
                Some(Fault::Silent) => {
                    // Until the client hangs up.
                    let _closed = reader.read(&mut [0]);
                    return;
                }
                Some(Fault::Corrupt) | None => {
                    let corrupt = matches!(fault, Some(Fault::Corrupt));
                    match self.handle(&request, corrupt) {
                        Some((status, body)) => {
                            let zip = request.method == "GET" && request.path.starts_with("/blob/");
                            let kind = if zip { "Content-Type: application/zip\r\n" } else { "" };
                            respond(&mut writer, status, kind, &body)
                        }
                        None => return reset(&writer),
                    }
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }

    fn read(&self, reader: &mut BufReader<TcpStream>) -> Option<Recorded> {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let mut parts = line.split_whitespace();
        let (method, target) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
                None => break,
            };
        }
        let length: u64 = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
        let mut body = Vec::new();
        reader.take(length).read_to_end(&mut body).ok().filter(|count| *count as u64 == length)?;
        // A proxy gets whole addresses.
        let target = target.strip_prefix(&self.address).map_or(target.clone(), str::to_owned);
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        Some(Recorded { method, path: path.to_owned(), query: query.to_owned(), headers, body, length })
    }

    /// Status and body; `None` where the server falls over.
    fn handle(&self, request: &Recorded, corrupt: bool) -> Option<(u16, Vec<u8>)> {
        let mut state = self.state();
        if !self.keep_bodies && request.length > 64 * 1024 {
            state.requests.last_mut().unwrap().body.clear();
        }
        let answer = match request.path.rsplit('/').next().unwrap() {
            "CreateArtifact" => self.create(&mut state, &request.json()),
            "FinalizeArtifact" => finalize(&mut state, &request.json()),
            "ListArtifacts" => return self.list(&state, &request.json()),
            "DeleteArtifact" => delete(&mut state, &request.json()),
            "GetSignedArtifactURL" => {
                let name = request.json()["name"].as_str().unwrap().to_owned();
                let id =
                    state.blobs.iter().find(|blob| blob.name == name && blob.finalized).map(|blob| blob.id);
                id.map_or_else(not_found, |id| {
                    (200, serde_json::json!({"signedUrl": format!("{}/blob/{id}?sig={}", self.address, self.signature)}))
                })
            }
            _ if request.path.starts_with("/repos/") => rest(&state, request),
            _ if request.path.starts_with("/blob/") => return self.blob(&mut state, request, corrupt),
            _ => not_found(),
        };
        Some((answer.0, answer.1.to_string().into_bytes()))
    }

    fn create(&self, state: &mut State, body: &serde_json::Value) -> (u16, serde_json::Value) {
        let name = body["name"].as_str().unwrap().to_owned();
        if state.blobs.iter().any(|blob| blob.name == name) {
            if self.kind == Kind::Github {
                let message = "an artifact with this name already exists on the workflow run";
                return (409, serde_json::json!({"code": "already_exists", "msg": message}));
            }
            state.blobs.retain(|blob| blob.name != name);
        }
        state.next += 1;
        let id = state.next;
        state.blobs.push(Blob { name, id, ..Blob::default() });
        let url = format!("{}/blob/{id}?sv=2024&sig={}&sp=cw", self.address, self.signature);
        let field = if self.kind == Kind::Act { "signedUploadUrl" } else { "signed_upload_url" };
        (200, serde_json::json!({"ok": true, field: url, "a_new_field": 1}))
    }

    fn list(&self, state: &State, body: &serde_json::Value) -> Option<(u16, Vec<u8>)> {
        let wanted = body.get("name_filter").and_then(|name| name.as_str());
        let wanted_id = body.get("id_filter").and_then(|id| id.as_str());
        if self.kind == Kind::Act && state.blobs.is_empty() {
            return None;
        }
        let artifacts: Vec<_> = state
            .blobs
            .iter()
            .filter(|blob| blob.finalized && wanted.is_none_or(|name| name == blob.name))
            .filter(|blob| wanted_id.is_none_or(|id| id == blob.id.to_string()))
            .map(|blob| match self.kind {
                Kind::Github => serde_json::json!({
                    "workflow_run_backend_id": "11", "workflow_job_run_backend_id": "22",
                    "database_id": blob.id.to_string(), "name": blob.name, "size": blob.length.to_string(),
                    "created_at": "2026-11-21T10:00:00Z",
                    "digest": format!("sha256:{}", hex::encode(blob.hasher.clone().finalize())),
                }),
                Kind::Act => serde_json::json!({
                    "workflowRunBackendId": "11", "workflowJobRunBackendId": "22",
                    "databaseId": blob.id.to_string(), "name": blob.name, "size": "4096",
                }),
            })
            .collect();
        Some((200, serde_json::json!({"artifacts": artifacts}).to_string().into_bytes()))
    }

    fn blob(&self, state: &mut State, request: &Recorded, corrupt: bool) -> Option<(u16, Vec<u8>)> {
        let id: u64 = request.path.rsplit('/').next().unwrap().parse().unwrap();
        // The signature has to arrive as it was given: '=' and '%2B' included.
        if !request.query.split('&').any(|pair| pair == format!("sig={}", self.signature)) {
            return Some((401, b"<Error>AuthenticationFailed</Error>".to_vec()));
        }
        let keep = self.keep_bodies;
        let Some(blob) = state.blobs.iter_mut().find(|blob| blob.id == id) else {
            return Some((404, Vec::new()));
        };
        if request.method == "GET" {
            return Some((200, blob.content.clone()));
        }
        match request.step().as_str() {
            "block" if self.kind == Kind::Act || !keep => {
                blob.hasher.update(&request.body);
                blob.length += request.length;
                if keep {
                    blob.content.extend_from_slice(&request.body);
                }
            }
            "block" => {
                let id = request.query.split('&').find_map(|pair| pair.strip_prefix("blockid=")).unwrap();
                blob.blocks.insert(
                    id.replace("%3D", "=").replace("%2B", "+").replace("%2F", "/"),
                    request.body.clone(),
                );
            }
            "blocklist" if self.kind == Kind::Github && keep => {
                let text = String::from_utf8(request.body.clone()).unwrap();
                blob.content.clear();
                for part in text.split("<Latest>").skip(1) {
                    let id = part.split("</Latest>").next().unwrap();
                    let Some(block) = blob.blocks.get(id) else {
                        return Some((400, b"InvalidBlockList".to_vec()));
                    };
                    blob.content.extend_from_slice(block);
                }
                if corrupt {
                    blob.content[0] ^= 1;
                }
                blob.hasher = Sha256::new();
                blob.hasher.update(&blob.content);
                blob.length = blob.content.len() as u64;
            }
            _ => {}
        }
        Some((201, Vec::new()))
    }
}

fn finalize(state: &mut State, body: &serde_json::Value) -> (u16, serde_json::Value) {
    let Some(blob) = state.blobs.iter_mut().find(|blob| Some(blob.name.as_str()) == body["name"].as_str())
    else {
        return not_found();
    };
    if blob.finalized {
        return (409, serde_json::json!({"code": "already_exists", "msg": "finalized already"}));
    }
    blob.finalized = true;
    (200, serde_json::json!({"ok": true, "artifact_id": blob.id.to_string()}))
}

fn delete(state: &mut State, body: &serde_json::Value) -> (u16, serde_json::Value) {
    let before = state.blobs.len();
    state.blobs.retain(|blob| Some(blob.name.as_str()) != body["name"].as_str());
    if state.blobs.len() == before {
        not_found()
    } else {
        (200, serde_json::json!({"ok": true, "artifact_id": "1"}))
    }
}

fn rest(state: &State, request: &Recorded) -> (u16, serde_json::Value) {
    let usual = |status: u16, message: &str| {
        let documentation = "https://docs.github.com/rest";
        let status_text = status.to_string();
        (
            status,
            serde_json::json!({"message": message, "documentation_url": documentation, "status": status_text}),
        )
    };
    let (status, body) =
        if request.headers.get("authorization").map(String::as_str) != Some("Bearer rest-token") {
            usual(401, "Bad credentials")
        } else if request.path != "/repos/owner/name/actions/runs/42/artifacts" {
            usual(404, "Not Found")
        } else {
            let artifacts: Vec<_> = state
                .blobs
                .iter()
                .filter(|blob| blob.finalized && request.query.contains(&format!("name={}", blob.name)))
                .map(|blob| {
                    let digest = format!("sha256:{}", hex::encode(blob.hasher.clone().finalize()));
                    let given = serde_json::json!({
                        "id": blob.id, "name": blob.name, "size_in_bytes": blob.length, "digest": digest,
                        "expires_at": "2027-02-19T10:00:00Z",
                    });
                    answers::answer("artifact", given)
                })
                .collect();
            (200, serde_json::json!({"total_count": artifacts.len(), "artifacts": artifacts}))
        };
    answers::check(&request.path, status, &body);
    (status, body)
}

fn not_found() -> (u16, serde_json::Value) {
    (404, serde_json::json!({"code": "not_found", "msg": "no such artifact"}))
}

fn respond(writer: &mut TcpStream, status: u16, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let kind = if headers.contains("Content-Type") { "" } else { "Content-Type: application/json\r\n" };
    write!(writer, "HTTP/1.1 {status} X\r\n{kind}{headers}Content-Length: {}\r\n\r\n", body.len())?;
    writer.write_all(body)?;
    writer.flush()
}

/// Ends a connection so that the client sees a reset, not an orderly end.
fn reset(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::Linger, &linger).unwrap();
    let _gone = stream.shutdown(std::net::Shutdown::Both);
}
