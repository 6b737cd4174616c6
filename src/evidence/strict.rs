//! JSON read strictly: duplicate keys and deep nesting are refused, so that two readers can't see two documents.

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Deepest nesting accepted.
pub const MAX_DEPTH: usize = 64;

/// Reads one JSON document.
///
/// # Errors
/// What is wrong, with line and column: not JSON, not UTF-8, a key twice in one object, nested too deeply, or
/// something after the document.
pub fn value(bytes: &[u8]) -> Result<Value, String> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0 }.deserialize(&mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(value)
}

/// Reads one JSON document as a `T`.
///
/// # Errors
/// As [`value`]; or the document doesn't have the shape of a `T`.
pub fn typed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_value(value(bytes)?).map_err(|error| error.to_string())
}

struct Strict {
    depth: usize,
}

impl Strict {
    fn inner<E: serde::de::Error>(&self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format!("nested deeper than {MAX_DEPTH}")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that JSON can't hold"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.inner()?)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("the key `{key}` stands twice")));
            }
            let value = entries.next_value_seed(self.inner()?)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serde_json_reads_is_read_alike() {
        let text = br#"{"a":[1,-2,3.5,"\u00e9\n",null,true],"b":{"a":18446744073709551615}}"#;
        assert_eq!(value(text).unwrap(), serde_json::from_slice::<Value>(text).unwrap());
    }

    #[test]
    fn a_key_twice_is_refused_at_any_depth() {
        assert!(value(br#"{"a":1,"a":1}"#).unwrap_err().contains("`a` stands twice at line 1"));
        assert!(value(br#"[{"x":{"b":1,"c":2,"b":3}}]"#).unwrap_err().contains("`b` stands twice"));
        assert!(value(br#"{"a":1,"\u0061":1}"#).is_err());
    }

    #[test]
    fn nesting_of_64_is_read_and_of_65_refused() {
        let nested = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(value(nested(64).as_bytes()).is_ok());
        assert!(value(nested(65).as_bytes()).unwrap_err().contains("deeper than 64"));
        assert!(value(nested(100_000).as_bytes()).is_err());
    }

    #[test]
    fn what_follows_the_document_is_refused() {
        assert!(value(b"{} {}").is_err());
        assert!(value(b"").is_err());
        assert!(value(b"\"\xff\"").is_err());
    }
}
