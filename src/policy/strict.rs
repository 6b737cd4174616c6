//! JSON that every parser reads alike.
//!
//! Two parsers may disagree on a message: on which of two equal keys counts, on keys that differ in case only, on
//! numbers that a double can't hold. Where the proxy and the server would see different calls, a denied call could
//! pass; so such messages are refused rather than interpreted.

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::Cell;
use std::fmt;

/// Values that one message may hold: bounds the memory that a 16 MiB line can become.
pub(super) const MOST_VALUES: u32 = 500_000;

/// Integers beyond this are rounded by parsers that hold numbers as doubles.
pub(super) const LARGEST_INTEGER: u64 = (1 << 53) - 1;

/// Reads `text` as one JSON value in which no object has a key twice.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let budget = Cell::new(MOST_VALUES);
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Unique { budget: &budget }.deserialize(&mut reader).map_err(readable)?;
    reader.end().map_err(readable)?;
    Ok(value)
}

fn readable(error: serde_json::Error) -> String {
    let text = error.to_string();
    text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]).to_owned()
}

/// Refuses a key of `map` that is one of `known` but for its case: some parsers ignore case.
pub(super) fn check_case(map: &Map<String, Value>, known: &[&str]) -> Result<(), String> {
    for key in map.keys() {
        if let Some(name) = known.iter().find(|name| differ_in_case_only(name, key)) {
            return Err(format!("key {key:?} is `{name}` to parsers that ignore case"));
        }
    }
    Ok(())
}

/// Case as the most lenient parser folds it: also the long s and the Kelvin sign.
pub(super) fn differ_in_case_only(name: &str, key: &str) -> bool {
    name != key && name.eq_ignore_ascii_case(&key.replace('\u{17f}', "s").replace('\u{212a}', "k"))
}

#[derive(Clone, Copy)]
struct Unique<'a> {
    budget: &'a Cell<u32>,
}

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let left = self.budget.get().checked_sub(1);
        self.budget
            .set(left.ok_or_else(|| D::Error::custom(format_args!("more than {MOST_VALUES} values")))?);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("key {:?} stands twice", shortened(&key))));
            }
            let value = entries.next_value_seed(self)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// At most 64 characters, for messages.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
