//! One line from the server, read as it streams by: is it a response, and to which request?
//!
//! So is one from the caller that is refused: whom to answer, and was it a call? Nothing here judges a line. A line that this reader takes
//! for no response leaves the call in flight: then later calls count as overlapping, never as cleanly measured.

/// Bytes of a key or a scalar that are kept; no id that is tracked is longer.
const KEPT: usize = 8 * 1024;

/// Reads JSON byte by byte in constant memory; keeps what stands at the top level.
#[derive(Debug, Default)]
pub struct Scanner {
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// Whether the value at depths 1 and 2 is an object, its next string a key, and its latest key.
    levels: [Level; 2],
    taking: Taking,
    kept: Vec<u8>,
    found: Found,
}

#[derive(Debug, Default)]
struct Level {
    object: bool,
    key_next: bool,
    key: Key,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Key {
    #[default]
    Other,
    Id,
    Method,
    Result,
    Error,
    Task,
    ResultType,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Taking {
    #[default]
    Nothing,
    Key,
    Value,
}

/// What stood at the top level of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// JSON text of `id`.
    pub id: Option<String>,
    /// There is a `method`: a request or notification of the server's own.
    pub method: bool,
    /// A `method` there is `tools/call`.
    pub call: bool,
    /// There is a `result` or an `error`.
    pub outcome: bool,
    /// The result announces a task: the work goes on after this response.
    pub task: bool,
}

impl Scanner {
    /// Takes the next bytes of the line.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.in_string && !self.escaped && self.taking == Taking::Nothing {
                // Most of a large line is text that nobody needs.
                match bytes.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
                    None => return,
                    Some(0) => {}
                    Some(at) => {
                        bytes = &bytes[at..];
                        continue;
                    }
                }
            }
            self.byte(byte);
            bytes = rest;
        }
    }

    /// What was found, once the whole line has been fed.
    pub fn finish(self) -> Found {
        self.found
    }

    fn byte(&mut self, byte: u8) {
        if self.taking != Taking::Nothing && (self.in_string || !byte.is_ascii_whitespace()) {
            self.keep(byte);
        }
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.string_ended(),
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                if self.level().is_some_and(|level| level.object && level.key_next) {
                    self.kept.clear();
                    self.kept.push(b'"');
                    self.taking = Taking::Key;
                }
            }
            b'{' | b'[' => {
                self.depth = self.depth.saturating_add(1);
                self.taking = Taking::Nothing;
                if let Some(level) = self.level() {
                    *level = Level { object: byte == b'{', key_next: true, key: Key::Other };
                }
                self.nested_value();
            }
            b'}' | b']' => {
                self.value_ended();
                self.depth = self.depth.saturating_sub(1);
            }
            b',' => {
                self.value_ended();
                if let Some(level) = self.level() {
                    level.key_next = true;
                }
            }
            b':' => self.value_begins(),
            _ => {}
        }
    }

    fn level(&mut self) -> Option<&mut Level> {
        let index = usize::try_from(self.depth).ok()?.checked_sub(1)?;
        self.levels.get_mut(index)
    }

    fn keep(&mut self, byte: u8) {
        if self.kept.len() < KEPT {
            self.kept.push(byte);
        } else {
            self.taking = Taking::Nothing;
        }
    }

    fn string_ended(&mut self) {
        self.in_string = false;
        if self.taking == Taking::Key {
            self.taking = Taking::Nothing;
            let key = serde_json::from_slice::<String>(&self.kept).unwrap_or_default();
            let outer = self.depth == 1;
            if let Some(level) = self.level() {
                level.key = match key.as_str() {
                    "id" if outer => Key::Id,
                    "method" if outer => Key::Method,
                    "result" if outer => Key::Result,
                    "error" if outer => Key::Error,
                    "task" if !outer => Key::Task,
                    "resultType" if !outer => Key::ResultType,
                    _ => Key::Other,
                };
            }
        }
    }

    fn value_begins(&mut self) {
        let Some(level) = self.level() else { return };
        if !level.object || !level.key_next {
            return;
        }
        level.key_next = false;
        let key = level.key;
        match key {
            Key::Result | Key::Error => self.found.outcome = true,
            Key::Id | Key::Method | Key::ResultType => {
                self.found.method |= key == Key::Method;
                self.kept.clear();
                self.taking = Taking::Value;
            }
            Key::Task | Key::Other => {}
        }
    }

    /// An object or array began one level down: `result.task` is one.
    fn nested_value(&mut self) {
        let [outer, inner] = &self.levels;
        if self.depth == 3 && outer.key == Key::Result && inner.object && inner.key == Key::Task {
            self.found.task = true;
        }
    }

    fn value_ended(&mut self) {
        if self.taking != Taking::Value {
            return;
        }
        self.taking = Taking::Nothing;
        self.kept.pop();
        let text = String::from_utf8_lossy(&self.kept).into_owned();
        let [outer, inner] = &self.levels;
        if self.depth == 1 && outer.key == Key::Id {
            self.found.id = Some(text);
        } else if self.depth == 1 && outer.key == Key::Method {
            self.found.call |=
                serde_json::from_str::<String>(&text).is_ok_and(|method| method == "tools/call");
        } else if self.depth == 2
            && outer.key == Key::Result
            && inner.key == Key::ResultType
            && text == "\"task\""
        {
            self.found.task = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(line: &str) -> Found {
        let mut scanner = Scanner::default();
        scanner.feed(line.as_bytes());
        scanner.finish()
    }

    #[test]
    fn only_the_top_level_counts() {
        let found =
            scan(r#"{"result":{"id":9,"method":"x","content":[{"id":8}]},"jsonrpc":"2.0","id": "a\"b"}"#);
        assert_eq!(found, Found { id: Some(r#""a\"b""#.into()), outcome: true, ..Found::default() });
        assert!(scan(r#"{"id":1,"method":"roots/list"}"#).method);
        assert_eq!(scan(r#"[{"id":1,"result":{}}]"#), Found::default());
        assert_eq!(scan(r#"{"\u0069d":4,"error":{}}"#).id.as_deref(), Some("4"));
    }

    #[test]
    fn a_result_that_announces_a_task_is_told_from_others() {
        assert!(scan(r#"{"id":1,"result":{"task":{"taskId":"x"}}}"#).task);
        assert!(scan(r#"{"id":1,"result":{"resultType":"task"}}"#).task);
        for line in [
            r#"{"id":1,"result":{"resultType":"complete","structuredContent":{"task":{}}}}"#,
            r#"{"id":1,"result":{"task":null}}"#,
            r#"{"id":1,"other":{"task":{}}}"#,
            r#"{"id":1,"result":[{"task":{}}]}"#,
        ] {
            assert!(!scan(line).task, "{line}");
        }
    }

    #[test]
    fn a_call_is_one_in_whichever_way_its_method_is_written_and_read() {
        for line in [
            r#"{"id":1,"method":"tools/call"}"#,
            r#"{"method" : "tools\/c\u0061ll" ,"x":"\ud800"}"#,
            r#"{"method":"tools/call","method":"ping"}"#,
            r#"{"method":"ping","method":"tools/call","params":{"cut"#,
        ] {
            assert!(scan(line).call, "{line}");
        }
        for line in [r#"{"method":"ping","params":{"method":"tools/call"}}"#, r#"{"method":["tools/call"]}"#]
        {
            assert!(!scan(line).call, "{line}");
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::Value;
        let text = "[a-z\"\\\\{}\\[\\],:\u{e9}\n]{0,6}|id|result|error|method|task|tools/call";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((text, inner), 0..4)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn it_agrees_with_a_whole_parser_however_the_line_is_cut(value in json(), pretty: bool, cut in 1usize..9) {
            let line = if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() };
            let mut scanner = Scanner::default();
            for part in line.as_bytes().chunks(cut) {
                scanner.feed(part);
            }
            let found = scanner.finish();
            let scalar = |value: &&serde_json::Value| !value.is_object() && !value.is_array();
            prop_assert_eq!(found.id, value.get("id").filter(scalar).map(ToString::to_string));
            prop_assert_eq!(found.method, value.get("method").is_some());
            prop_assert_eq!(found.call, value.get("method").is_some_and(|method| method == "tools/call"));
            prop_assert_eq!(found.outcome, value.get("result").or(value.get("error")).is_some());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut scanner = Scanner::default();
            scanner.feed(&bytes);
            scanner.finish();
        }
    }
}
