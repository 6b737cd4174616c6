//! Every way to change one field of a file once, by the form of the file.

use assay_gates::files::sha256;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// One change, in whatever file has the same form.
#[derive(Clone, Debug)]
pub enum Edit {
    /// The value at these keys of a JSON file.
    Json(Vec<Key>, Op),
    /// The same in one line of NDJSON.
    Line(usize, Vec<Key>, Op),
    /// A line of text is longer.
    Text(usize),
    /// The last line is gone.
    Shorter,
    /// A byte is another.
    Byte,
    /// The file is gone.
    Gone,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Key {
    Name(String),
    At(usize),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// Another value of the same kind.
    Another,
    /// The field, or the last item of a list, is gone.
    Gone,
}

/// Words of which another means the opposite, or at least another thing.
const OTHERS: &[(&str, &str)] = &[
    ("passed", "failed"),
    ("allow", "deny"),
    ("strong", "weak"),
    ("read", "write"),
    ("success", "error"),
    ("complete", "absent"),
    ("clean", "partial"),
    ("present", "absent"),
    ("self_reported", "absent"),
    ("corroborated", "self_reported"),
    ("positive_join", "semantic_gap"),
    ("kernel", "agent"),
    ("driver", "agent"),
    ("decider", "agent"),
    ("agent", "driver"),
    ("open", "rename"),
    ("openat", "openat2"),
    ("PASS", "WARN"),
    ("WARN", "PASS"),
    ("exact", "none"),
    ("not_refuted", "not_measured"),
    ("evidence", "telemetry"),
];

/// The changes of one file: what is changed, and how. The first field of each name stands for all of them.
pub fn of(path: &str, bytes: &[u8]) -> Vec<(String, Edit)> {
    let mut all = vec![("gone".to_owned(), Edit::Gone)];
    let Ok(text) = std::str::from_utf8(bytes) else {
        all.push(("byte".to_owned(), Edit::Byte));
        return all;
    };
    if path.ends_with(".json") {
        let value: Value = serde_json::from_str(text).unwrap();
        all.extend(fields(&value).into_iter().map(|(name, keys, op)| (name, Edit::Json(keys, op))));
    } else if path.ends_with(".ndjson") || path.ends_with(".jsonl") {
        let mut seen = BTreeSet::new();
        for (at, line) in text.lines().enumerate() {
            for (name, keys, op) in fields(&serde_json::from_str(line).unwrap()) {
                if seen.insert(name.clone()) {
                    all.push((name, Edit::Line(at, keys, op)));
                }
            }
        }
        all.extend((!text.is_empty()).then(|| ("last line gone".to_owned(), Edit::Shorter)));
    } else {
        let mut seen = BTreeSet::new();
        for (at, line) in text.lines().enumerate() {
            let name = match line.split_once(':') {
                Some((key, _)) if path.ends_with(".yaml") => {
                    key.trim_start_matches([' ', '-', '{']).to_owned()
                }
                Some(("PASS", _)) => "PASS".to_owned(),
                _ => "line".to_owned(),
            };
            if seen.insert(name.clone()) {
                all.push((name, Edit::Text(at)));
            }
        }
        all.extend((!text.is_empty()).then(|| ("last line gone".to_owned(), Edit::Shorter)));
    }
    all
}

/// Every leaf once, every key once, every list once: by its name, in which numbers of items are `*`.
fn fields(value: &Value) -> Vec<(String, Vec<Key>, Op)> {
    fn walk(
        value: &Value,
        name: &str,
        keys: &[Key],
        seen: &mut BTreeSet<String>,
        all: &mut Vec<(String, Vec<Key>, Op)>,
    ) {
        let mut put = |name: String, keys: Vec<Key>, op| {
            if seen.insert(name.clone()) {
                all.push((name, keys, op));
            }
        };
        let with = |key: Key| [keys, &[key]].concat();
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    let (name, keys) = (format!("{name}/{key}"), with(Key::Name(key.clone())));
                    let mut gone = |name: String| {
                        if seen.insert(name.clone()) {
                            all.push((name, keys.clone(), Op::Gone));
                        }
                    };
                    gone(format!("{name} gone"));
                    walk(value, &name, &keys, seen, all);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                put(format!("{name}/* gone"), with(Key::At(items.len() - 1)), Op::Gone);
                for (at, item) in items.iter().enumerate() {
                    walk(item, &format!("{name}/*"), &with(Key::At(at)), seen, all);
                }
            }
            _ => put(name.to_owned(), keys.to_vec(), Op::Another),
        }
    }
    let mut all = Vec::new();
    walk(value, "", &[], &mut BTreeSet::new(), &mut all);
    all
}

/// The file with that change; none when it is gone. A file that has no such place is as it was.
pub fn apply(edit: &Edit, bytes: &[u8]) -> Option<Vec<u8>> {
    let text = || std::str::from_utf8(bytes).unwrap();
    Some(match edit {
        Edit::Gone => return None,
        Edit::Byte => {
            let mut bytes = bytes.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes
        }
        Edit::Text(at) => {
            let mut lines: Vec<String> = text().lines().map(str::to_owned).collect();
            lines[*at].push('x');
            (lines.join("\n") + "\n").into_bytes()
        }
        Edit::Shorter => {
            let lines: Vec<&str> = text().lines().collect();
            let kept = &lines[..lines.len() - 1];
            kept.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes()
        }
        Edit::Json(keys, op) => {
            let mut value: Value = serde_json::from_str(text()).unwrap();
            change(&mut value, keys, *op);
            written(&value, text()).into_bytes()
        }
        Edit::Line(at, keys, op) => {
            let mut lines: Vec<String> = text().lines().map(str::to_owned).collect();
            if let Some(line) = lines.get_mut(*at) {
                let mut value: Value = serde_json::from_str(line).unwrap();
                change(&mut value, keys, *op);
                *line = value.to_string();
            }
            lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes()
        }
    })
}

/// As the file was written: indented, or in one line.
pub fn written(value: &Value, like: &str) -> String {
    if like.trim_end().contains('\n') {
        serde_json::to_string_pretty(value).unwrap() + "\n"
    } else {
        value.to_string()
    }
}

fn change(value: &mut Value, keys: &[Key], op: Op) {
    let Some((last, before)) = keys.split_last() else {
        *value = another(value);
        return;
    };
    let mut at = value;
    for key in before {
        let next = match key {
            Key::Name(name) => at.get_mut(name),
            Key::At(index) => at.get_mut(index),
        };
        let Some(next) = next else { return };
        at = next;
    }
    match (last, op) {
        (Key::Name(name), Op::Gone) => {
            at.as_object_mut().and_then(|map| map.shift_remove(name));
        }
        (Key::At(index), Op::Gone) => {
            at.as_array_mut().map(|items| items.remove(*index));
        }
        (Key::Name(name), Op::Another) => {
            if let Some(one) = at.get_mut(name) {
                *one = another(one);
            }
        }
        (Key::At(index), Op::Another) => {
            if let Some(one) = at.get_mut(index) {
                *one = another(one);
            }
        }
    }
}

fn another(value: &Value) -> Value {
    match value {
        Value::Bool(word) => json!(!word),
        Value::Number(number) => number.as_i64().map_or(json!(1), |number| json!(number + 1)),
        Value::String(text) => json!(another_text(text)),
        Value::Null => json!("x"),
        Value::Array(_) => json!(["x"]),
        Value::Object(_) => json!({"x": "x"}),
    }
}

fn another_text(text: &str) -> String {
    if let Some((_, other)) = OTHERS.iter().find(|(word, _)| *word == text) {
        return (*other).to_owned();
    }
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    if hex.len() >= 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let other = sha256(text.as_bytes()).hex();
        return text.replace(hex, &other[..hex.len().min(64)]);
    }
    match text.parse::<u64>() {
        Ok(number) => (number + 1).to_string(),
        // A time stays one.
        Err(_) if text.ends_with(":00Z") => text.replace(":00Z", ":01Z"),
        Err(_) => format!("{text}x"),
    }
}
