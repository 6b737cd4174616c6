//! One line from the caller: is it a tool call, and which?

use super::call_id::{self, GivenId};
use super::scan::{Found, Scanner};
use super::strict::{LARGEST_INTEGER, check_case, parse, shortened};
use serde_json::{Map, Value};

/// Longest tool name, call id and text request id, in bytes.
pub(super) const LONGEST_NAME: usize = 256;

/// Longest text of a request id, in bytes.
const LONGEST_ID: usize = 1024;

/// JSON-RPC: the line is not JSON.
pub(super) const PARSE_ERROR: i64 = -32700;
/// JSON-RPC: the line is not a request that can be read in one way only.
pub(super) const INVALID_REQUEST: i64 = -32600;
/// JSON-RPC: the parameters of a tool call don't fit.
pub(super) const INVALID_PARAMS: i64 = -32602;

/// A request id in one canonical form, so that `"\u0061"` and `"a"` are the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id(String);

impl Id {
    /// The id of a request that can be tracked: text, or an integer that every parser holds exactly.
    pub(super) fn new(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) if text.len() <= LONGEST_ID => Some(Self(value.to_string())),
            Value::Number(number) => {
                let magnitude = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs))?;
                (magnitude <= LARGEST_INTEGER).then(|| Self(number.to_string()))
            }
            _ => None,
        }
    }

    /// The id from its JSON text, as a response carries it.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().as_ref().and_then(Self::new)
    }
}

/// A tool call that can be read in one way only.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The request id as the caller wrote it: text or an integer.
    pub request_id: Value,
    /// The tool.
    pub tool: String,
    /// What joins the call to the SDK's own events, where the caller gave it.
    pub given_id: Option<GivenId>,
    /// The arguments; empty when the caller gave none.
    pub arguments: Map<String, Value>,
    /// The caller asked for a task: the work goes on after the response.
    pub task: bool,
}

impl Call {
    /// The request id as text.
    #[must_use]
    pub fn request_text(&self) -> String {
        match &self.request_id {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

/// What a line from the caller is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Message {
    /// `tools/call`: to be decided.
    Call(Box<Call>, Id),
    /// Another request, that may have effects while it is in flight.
    Request(Id),
    /// The caller gave up on a request.
    Cancelled(Id),
    /// Nothing that the proxy minds: a notification, a response, a request without effects.
    Other,
}

/// A line that must not reach the server, because it is not certain what the server would make of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Malformed {
    /// Whom to answer; null when the id can't be known.
    pub(super) id: Value,
    /// JSON-RPC error code.
    pub(super) code: i64,
    /// What is wrong.
    pub(super) message: String,
    /// It is a tool call in some reading, of this tool if the name could be read.
    pub(super) call: Option<Option<String>>,
    /// It is a response: not the caller waits, but the server.
    pub(super) response: bool,
}

/// The tool call that a line (without its line feed) is; none when it is something else that may pass.
///
/// # Errors
/// Why the line must not reach a server: it can be read in more than one way, or in none.
pub fn classify(line: &[u8]) -> Result<Option<Call>, String> {
    match read(line) {
        Ok(Message::Call(call, _)) => Ok(Some(*call)),
        Ok(_) => Ok(None),
        Err(malformed) => Err(malformed.message),
    }
}

/// Reads one line, without its line feed.
pub(super) fn read(line: &[u8]) -> Result<Message, Box<Malformed>> {
    let body = line.strip_suffix(b"\r").unwrap_or(line);
    if body.iter().all(|byte| matches!(byte, b' ' | b'\t')) {
        return Ok(Message::Other);
    }
    // Under the id that can still be read, so that whoever waits for an answer gets one.
    let unreadable = |code, message: String| {
        let mut scanner = Scanner::default();
        scanner.feed(body);
        Box::new(Malformed::unread(&scanner.finish(), code, message))
    };
    let text = std::str::from_utf8(body).map_err(|error| {
        unreadable(PARSE_ERROR, format!("the line is not UTF-8 after byte {}", error.valid_up_to()))
    })?;
    if body.contains(&b'\r') {
        // Readers with universal newlines would see two lines.
        return Err(unreadable(PARSE_ERROR, "the line has a carriage return inside".to_owned()));
    }
    let value = parse(text).map_err(|error| {
        let code = if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
            INVALID_REQUEST
        } else {
            PARSE_ERROR
        };
        unreadable(code, format!("the line can't be read in one way only: {error}"))
    })?;
    match value {
        Value::Object(map) => object(map),
        Value::Array(_) => Err(unreadable(INVALID_REQUEST, "batches are not part of MCP".to_owned())),
        _ => Err(unreadable(INVALID_REQUEST, "a message is a JSON object".to_owned())),
    }
}

fn object(mut map: Map<String, Value>) -> Result<Message, Box<Malformed>> {
    let id = map.get("id").cloned();
    let answerable = || id.clone().filter(|id| Id::new(id).is_some()).unwrap_or(Value::Null);
    let respond = (map.contains_key("result") || map.contains_key("error")) && !map.contains_key("method");
    let calls = map.iter().any(|(key, value)| key.eq_ignore_ascii_case("method") && value == "tools/call");
    let malformed = |code, message: String| {
        Box::new(Malformed {
            id: answerable(),
            code,
            message,
            call: calls.then_some(None),
            response: respond && !calls,
        })
    };
    check_case(&map, &["jsonrpc", "id", "method", "params"])
        .map_err(|error| malformed(INVALID_REQUEST, error))?;
    let method = match map.get("method") {
        None => return Ok(Message::Other),
        Some(Value::String(method)) => method.as_str(),
        Some(_) => return Err(malformed(INVALID_REQUEST, "`method` is not text".to_owned())),
    };
    let known_id = id.as_ref().and_then(Id::new);
    match method {
        "tools/call" => {
            let params = map.remove("params");
            call(params, id.as_ref(), known_id).map_err(|(code, message, tool)| {
                Box::new(Malformed { id: answerable(), code, message, call: Some(tool), response: false })
            })
        }
        "notifications/cancelled" => {
            let request = map.get("params").and_then(|params| params.get("requestId"));
            Ok(request.and_then(Id::new).map_or(Message::Other, Message::Cancelled))
        }
        // Both leave the server's files alone; the second stays open for as long as the session.
        "ping" | "subscriptions/listen" => Ok(Message::Other),
        _ => Ok(known_id.map_or(Message::Other, Message::Request)),
    }
}

/// Code, what is wrong, and the tool if its name could be read.
type BadCall = (i64, String, Option<String>);

fn call(params: Option<Value>, id: Option<&Value>, known_id: Option<Id>) -> Result<Message, BadCall> {
    let mut params = match params {
        Some(Value::Object(params)) => params,
        Some(_) => return Err((INVALID_PARAMS, "`params` is not an object".to_owned(), None)),
        None => return Err((INVALID_PARAMS, "`params` is missing".to_owned(), None)),
    };
    check_case(&params, &["name", "arguments", "_meta", "task"])
        .map_err(|error| (INVALID_PARAMS, error, None))?;
    let tool = match params.get("name") {
        Some(Value::String(name)) => name.clone(),
        Some(_) => return Err((INVALID_PARAMS, "`params.name` is not text".to_owned(), None)),
        None => return Err((INVALID_PARAMS, "`params.name` is missing".to_owned(), None)),
    };
    if !plain(&tool) {
        let message = format!(
            "`params.name` must be 1 to {LONGEST_NAME} bytes without control characters or blanks around it"
        );
        return Err((INVALID_PARAMS, message, None));
    }
    let bad = |code, message: String| Err((code, message, Some(tool.clone())));
    let given_id = match call_id::given(&params) {
        Ok(given) => given,
        Err(message) => return bad(INVALID_PARAMS, message),
    };
    let arguments = match params.remove("arguments") {
        // Null is what some clients send for none.
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(arguments)) => arguments,
        Some(_) => return bad(INVALID_PARAMS, "`params.arguments` is not an object".to_owned()),
    };
    let (Some(request_id), Some(known_id)) = (id, known_id) else {
        let message = format!(
            "the id of a tool call must be text of at most {LONGEST_ID} bytes or an integer of at most {LARGEST_INTEGER}"
        );
        return bad(INVALID_REQUEST, message);
    };
    if let (None, Value::String(text)) = (&given_id, request_id)
        && !plain(text)
    {
        return bad(INVALID_REQUEST, "the id makes no call id: give `_meta.tool_call_id`".to_owned());
    }
    let task = params.get("task").is_some_and(|task| !task.is_null());
    let call = Call { request_id: request_id.clone(), tool, given_id, arguments, task };
    Ok(Message::Call(Box::new(call), known_id))
}

/// Text that stands in a log, a file name's part or a cell of a table without harm.
pub(super) fn plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST_NAME && text.trim() == text && !text.contains(char::is_control)
}

/// Text as it may stand in a call id: without control characters, at most 64 characters.
pub(super) fn shown(text: &str) -> String {
    shortened(&text.replace(char::is_control, "?"))
}

impl Malformed {
    /// Of a line of which only what stands at its top level is known.
    pub(super) fn unread(found: &Found, code: i64, message: String) -> Self {
        let id = found.id.as_deref().and_then(|id| serde_json::from_str(id).ok());
        Self {
            id: id.filter(|id| Id::new(id).is_some()).unwrap_or_default(),
            code,
            message,
            call: found.call.then_some(None),
            response: found.outcome && !found.method,
        }
    }

    /// The tool as the decision log names it, when the line is certainly a tool call.
    pub(super) fn tool(&self) -> Option<String> {
        self.call.as_ref().map(|tool| tool.as_deref().map_or_else(|| "(unreadable)".to_owned(), shown))
    }
}
