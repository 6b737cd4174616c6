//! One session: what becomes of each line, in either direction.

use super::call_id;
use super::decision::{Decision, Outcome, Reason};
use super::inflight::{InFlight, Unfollowable};
use super::keeper::{Begin, Keeper};
use super::lines::{LONGEST_LINE, Line, Lines};
use super::message::{self, Call, INVALID_REQUEST, Id, Malformed, Message};
use super::scan::{Found, Scanner};
use super::{Origin, Policy, Subject, log};
use crate::error::Result;
use crate::files::{Sha256Digest, sha256};
use crate::report;
use serde_json::{Value, json};
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// JSON-RPC error code of a call that the policy refuses.
pub const REFUSED: i64 = -32010;

/// JSON-RPC: something on this side broke.
const INTERNAL_ERROR: i64 = -32603;

/// What both directions share.
pub struct Session {
    policy: Arc<Policy>,
    origin: Origin,
    state: Mutex<State>,
    /// The caller's end; `None` once the server has nothing more to say.
    caller: Mutex<Option<Box<dyn Write + Send>>>,
}

#[derive(Debug)]
struct State {
    keeper: Box<dyn Keeper>,
    flights: InFlight,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Session {
    /// Of one caller with one server; `caller` is where answers go.
    #[must_use]
    pub fn new(
        policy: Arc<Policy>,
        origin: Origin,
        keeper: Box<dyn Keeper>,
        caller: Box<dyn Write + Send>,
    ) -> Self {
        let state = Mutex::new(State { keeper, flights: InFlight::default() });
        Self { policy, origin, state, caller: Mutex::new(Some(caller)) }
    }

    /// Reads the caller to its end and passes on to the server what may pass.
    ///
    /// # Errors
    /// What either stream fails with.
    pub fn serve_caller(&self, caller: impl Read, mut server: impl Write) -> io::Result<()> {
        let mut lines = Lines::new(caller);
        while let Some(line) = lines.read()? {
            match line {
                Line::Whole(bytes) => {
                    if self.may_pass(bytes, &mut server)? {
                        server.write_all(bytes)?;
                        server.flush()?;
                    }
                }
                Line::TooLong { bytes, digest, found } => {
                    let malformed = Malformed::unread(&found, INVALID_REQUEST, too_long(bytes));
                    self.refuse(&malformed, digest, &mut server)?;
                }
            }
        }
        Ok(())
    }

    /// Reads the server to its end and passes everything on to the caller.
    ///
    /// # Errors
    /// What either stream fails with.
    pub fn serve_server(&self, server: impl Read) -> io::Result<()> {
        let mut lines = Lines::new(server);
        loop {
            let line = match lines.read() {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(error) => return self.close_caller().and(Err(error)),
            };
            match line {
                Line::Whole(bytes) => {
                    self.answered(bytes);
                    self.write(bytes)?;
                }
                Line::TooLong { bytes, found, .. } => {
                    report::diagnostic(&format!("mcp-wrap: dropped from the server: {}", too_long(bytes)));
                    self.ended(&found);
                    let id = found.id.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
                    if let (Some(id), true) = (id, found.outcome && !found.method) {
                        self.answer(
                            &id,
                            INTERNAL_ERROR,
                            &format!("the server's response: {}", too_long(bytes)),
                            None,
                        )?;
                    }
                }
            }
        }
        self.close_caller()
    }

    /// Whether the line may reach the server. Answers whoever waits for it when not.
    fn may_pass(&self, line: &[u8], server: &mut impl Write) -> io::Result<bool> {
        let body = line.strip_suffix(b"\n").unwrap_or(line);
        match message::read(body) {
            Ok(Message::Other) => {}
            Ok(Message::Cancelled(id)) => self.state().flights.cancelled(&id),
            Ok(Message::Request(id)) => {
                let mut state = self.state();
                if state.flights.request(id) {
                    state.keeper.overlap();
                }
            }
            Ok(Message::Call(call, id)) => return self.decide(&call, &id, body),
            Err(malformed) => {
                self.refuse(&malformed, sha256(body), server)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn decide(&self, call: &Call, id: &Id, body: &[u8]) -> io::Result<bool> {
        let mut decision = self.policy.decide(call);
        let (tool_call_id, rule) = self.origin.call_id(call);
        let mut state = self.state();
        let mut begin = None;
        if decision.outcome == Outcome::Allow {
            match state.flights.call(id, call.task) {
                Ok(begun) => {
                    begin = Some(Begin {
                        call: begun.number,
                        tool_call_id: tool_call_id.clone(),
                        id_rule: rule.to_owned(),
                        tool: call.tool.clone(),
                        overlap: begun.overlap,
                    });
                }
                Err(Unfollowable::SameId) => {
                    decision = Decision::error(
                        Reason::Unfollowable,
                        "a request with the same id is in flight".to_owned(),
                    );
                }
                Err(Unfollowable::TooMany) => {
                    decision =
                        Decision::error(Reason::Unfollowable, "too many requests are in flight".to_owned());
                }
            }
        }
        let subject = Subject {
            tool: &call.tool,
            tool_call_id: &tool_call_id,
            rule,
            request_id: &call.request_id,
            request_digest: sha256(body),
        };
        let allowed = begin.is_some();
        if let Err(error) = self.record(&mut state, &subject, &decision, begin) {
            if allowed {
                state.flights.withdrawn(id);
            }
            drop(state);
            let message = format!("tool call refused: the decision could not be logged: {error}");
            let data = json!({"decision": "error", "reason_code": "E_LOG_UNWRITABLE", "reason": error.to_string(), "tool": call.tool, "tool_call_id": tool_call_id});
            self.answer(&call.request_id, REFUSED, &message, Some(data))?;
            return Ok(false);
        }
        drop(state);
        if !allowed {
            self.answer_refusal(&call.request_id, REFUSED, &subject, &decision)?;
        }
        Ok(allowed)
    }

    /// Answers a line that can't be read in one way only; a tool call among them is a decision too. The answer to a
    /// response goes to the server, which asked: the caller may have a request of its own under that id.
    fn refuse(
        &self,
        malformed: &Malformed,
        request_digest: Sha256Digest,
        server: &mut impl Write,
    ) -> io::Result<()> {
        if malformed.response {
            let message = format!("the caller's response: {}", malformed.message);
            report::diagnostic(&format!("mcp-wrap: refused from the caller: {}", malformed.message));
            if malformed.id.is_null() {
                return Ok(());
            }
            server.write_all(error_line(&malformed.id, INTERNAL_ERROR, &message, None).as_bytes())?;
            return server.flush();
        }
        let Some(tool) = malformed.tool() else {
            return self.answer(&malformed.id, malformed.code, &malformed.message, None);
        };
        let decision = Decision::error(Reason::Malformed, malformed.message.clone());
        let request = match &malformed.id {
            Value::Null => "unknown".to_owned(),
            Value::String(text) => message::shown(text),
            other => other.to_string(),
        };
        let tool_call_id = self.origin.request_id(&request);
        let subject = Subject {
            tool: &tool,
            tool_call_id: &tool_call_id,
            rule: call_id::REQUEST,
            request_id: &malformed.id,
            request_digest,
        };
        let recorded = self.record(&mut self.state(), &subject, &decision, None);
        if let Err(error) = recorded {
            report::diagnostic(&format!("mcp-wrap: the refusal could not be logged: {error}"));
        }
        self.answer_refusal(&malformed.id, malformed.code, &subject, &decision)
    }

    fn record(
        &self,
        state: &mut State,
        subject: &Subject<'_>,
        decision: &Decision,
        begin: Option<Begin>,
    ) -> io::Result<()> {
        let line: Result<String> = log::line(&self.origin, subject, decision, chrono::Utc::now());
        state.keeper.decision(&line.map_err(io::Error::other)?, begin)
    }

    /// Ends the call that a line from the server answers, before the caller can see the answer.
    fn answered(&self, line: &[u8]) {
        if self.state().flights.is_empty() {
            return;
        }
        let mut scanner = Scanner::default();
        scanner.feed(line);
        self.ended(&scanner.finish());
    }

    fn ended(&self, found: &Found) {
        if found.method || !found.outcome {
            return;
        }
        let Some(id) = found.id.as_deref().and_then(Id::from_text) else { return };
        let mut state = self.state();
        if let Some(call) = state.flights.answered(&id, found.task) {
            state.keeper.end(call);
        }
    }

    fn answer_refusal(
        &self,
        id: &Value,
        code: i64,
        subject: &Subject<'_>,
        decision: &Decision,
    ) -> io::Result<()> {
        let data = json!({
            "decision": decision.outcome,
            "reason_code": decision.reason,
            "reason": decision.text,
            "tool": subject.tool,
            "tool_call_id": subject.tool_call_id,
        });
        self.answer(id, code, &format!("tool call refused: {}", decision.text), Some(data))
    }

    fn answer(&self, id: &Value, code: i64, message: &str, data: Option<Value>) -> io::Result<()> {
        self.write(error_line(id, code, message, data).as_bytes())
    }

    /// Writes whole lines only, so that answers of this side never land inside a line of the server's.
    fn write(&self, line: &[u8]) -> io::Result<()> {
        match self.caller().as_mut() {
            Some(caller) => caller.write_all(line),
            None => Ok(()),
        }
    }

    fn close_caller(&self) -> io::Result<()> {
        self.caller().take();
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn caller(&self) -> MutexGuard<'_, Option<Box<dyn Write + Send>>> {
        self.caller.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A JSON-RPC error as a line.
fn error_line(id: &Value, code: i64, message: &str, data: Option<Value>) -> String {
    let mut error = json!({"code": code, "message": message});
    if let (Some(data), Some(error)) = (data, error.as_object_mut()) {
        error.insert("data".to_owned(), data);
    }
    let mut line = json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string();
    line.push('\n');
    line
}

fn too_long(bytes: u64) -> String {
    format!("a line of {bytes} bytes is above the limit of {LONGEST_LINE} bytes")
}
