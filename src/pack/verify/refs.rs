//! Evidence references: `path#seq=N` names a line of NDJSON, `path#/pointer` a value of JSON, `path` a file.
//!
//! A path is relative to the pack when it begins with `payload/`, else to the folder of the file that refers. What stands
//! there must say what the row says of it ([`super::said`]).

use super::Check;
use super::said::Says;
use crate::evidence::schema;
use crate::judge::scenario::rows::ProofPackReference;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};

/// Longest line of NDJSON that a reference can lead to.
const LINE: u64 = 1024 * 1024;
/// Most references of a pack.
const MOST: usize = 20_000;

/// References by the file that they lead into.
#[derive(Default)]
pub(super) struct Refs {
    by_target: BTreeMap<String, Vec<Ref>>,
}

struct Ref {
    from: String,
    text: String,
    fragment: Fragment,
    says: Says,
}

#[derive(Clone)]
enum Fragment {
    Whole,
    Line(u64),
    Pointer(String),
}

impl Check<'_> {
    /// Every reference in the review rows.
    pub(super) fn collect_refs(&mut self) -> Refs {
        let mut refs = Refs::default();
        let mut count = 0;
        let files: Vec<String> = self
            .manifest
            .payload_files
            .iter()
            .map(|row| row.path.clone())
            .filter(|path| path.starts_with("payload/runs/") && path.ends_with(".json"))
            .collect();
        for from in files {
            let value: Value =
                match self.source.text(&from).map(|text| crate::evidence::strict::value(text.as_bytes())) {
                    Ok(Ok(value)) => value,
                    Ok(Err(error)) => {
                        self.fault("review_row", from, "JSON", error);
                        continue;
                    }
                    Err(finding) => {
                        self.keep(finding);
                        continue;
                    }
                };
            self.row_schema(&from, &value);
            let mut found = Vec::new();
            gather(&value, &self.context(&from), &mut found);
            for (text, says) in found {
                count += 1;
                if count > MOST {
                    return self.too_many(refs, &from);
                }
                match parse(&from, &text) {
                    Ok((target, fragment)) => {
                        let one = Ref { from: from.clone(), text, fragment, says };
                        refs.by_target.entry(target).or_default().push(one);
                    }
                    Err(expected) => self.fault("evidence_ref", from.clone(), expected, text),
                }
            }
        }
        refs
    }

    /// What the folder of the row at `from` says of the archive: its own reference, as far as it can be read.
    fn context(&self, from: &str) -> Says {
        let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
        let typed = |name: &str| {
            let text = self.source.text(&format!("{folder}/{name}")).ok()?;
            serde_json::from_str::<Value>(&text).ok()
        };
        let reference = typed("proof-pack-reference.json");
        let evidence = reference.and_then(|value| {
            serde_json::from_value::<ProofPackReference>(value).ok()?.runner_archive_evidence
        });
        let strong =
            typed("join-result.json").is_some_and(|join| join["fallback_used"] == Value::Bool(false));
        let joined = evidence.as_ref().filter(|_| strong).map(|evidence| evidence.tool_call_id.clone());
        Says { claim: None, joined, evidence }
    }

    /// A row (or each of an array of rows) fits the schema that it names, where this build knows that schema.
    fn row_schema(&mut self, from: &str, value: &Value) {
        if let Value::Array(rows) = value {
            rows.iter().for_each(|row| self.row_schema(from, row));
            return;
        }
        let Some(id) = value.get("schema").and_then(Value::as_str) else { return };
        if !schema::ALL.iter().any(|(known, _)| *known == id) {
            return;
        }
        match schema::faults(id, value) {
            Ok(faults) => {
                for fault in faults {
                    self.fault("review_row", format!("{from}{}", fault.place), fault.expected, fault.found);
                }
            }
            Err(error) => self.fault("review_row", from, "a row that can be checked", error.message()),
        }
    }

    fn too_many(&mut self, refs: Refs, from: &str) -> Refs {
        self.fault("evidence_ref", from, format!("at most {MOST} references"), "more");
        refs
    }

    /// Resolves all of them.
    pub(super) fn refs_into_files(&mut self, refs: Refs) {
        let source = self.source;
        for (target, wanted) in refs.by_target {
            match source.reader(&target) {
                Ok(reader) => self.resolve(&target, &wanted, reader),
                Err(_) => {
                    for one in &wanted {
                        self.fault(
                            "evidence_ref",
                            one.from.clone(),
                            format!("{} to lead to a file", one.text),
                            "none there",
                        );
                    }
                }
            }
        }
    }

    fn resolve(&mut self, target: &str, wanted: &[Ref], content: impl Read) {
        let lines: BTreeSet<u64> = wanted
            .iter()
            .filter_map(|one| if let Fragment::Line(seq) = one.fragment { Some(seq) } else { None })
            .collect();
        let pointers = wanted.iter().any(|one| matches!(one.fragment, Fragment::Pointer(_)));
        let (mut present, mut value) = (BTreeMap::new(), Value::Null);
        if !lines.is_empty() {
            present = lines_with(&lines, content);
        } else if pointers {
            let mut text = Vec::new();
            let limit = crate::pack::source::TEXT_LIMIT;
            if content.take(limit).read_to_end(&mut text).is_ok() {
                value = crate::evidence::strict::value(&text).unwrap_or_default();
            }
        }
        for one in wanted {
            let found = match &one.fragment {
                Fragment::Whole => continue,
                Fragment::Line(seq) => present.get(seq),
                Fragment::Pointer(pointer) => value.pointer(pointer).filter(|_| lines.is_empty()),
            };
            let Some(found) = found.filter(|value| !value.is_null()) else {
                self.fault(
                    "evidence_ref",
                    one.from.clone(),
                    format!("{} to lead to something", one.text),
                    format!("no such place in {target}"),
                );
                continue;
            };
            if let Some((expected, found)) = one.says.contradiction(target, found) {
                let place = format!("{}, {}", one.from, one.text);
                self.fault("evidence_ref", place, format!("what the row says: {expected}"), found);
            }
        }
    }
}

fn gather(value: &Value, around: &Says, found: &mut Vec<(String, Says)>) {
    match value {
        Value::Object(map) => {
            let claim = map.get("claim_type").and_then(Value::as_str).map(str::to_owned);
            let says = Says { claim: claim.or_else(|| around.claim.clone()), ..around.clone() };
            for (key, value) in map {
                match value {
                    Value::Array(items) if key == "evidence_refs" => {
                        let text =
                            |item: &Value| item.as_str().map_or_else(|| item.to_string(), str::to_owned);
                        found.extend(items.iter().map(|item| (text(item), says.clone())));
                    }
                    other => gather(other, &says, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| gather(item, around, found)),
        _ => {}
    }
}

/// Where a reference leads: a path within the pack, and a place in that file.
fn parse(from: &str, text: &str) -> Result<(String, Fragment), &'static str> {
    let (path, fragment) =
        text.split_once('#').map_or((text, None), |(path, fragment)| (path, Some(fragment)));
    let target = if path.starts_with("payload/") {
        path.to_owned()
    } else {
        let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{folder}/{path}")
    };
    if crate::pack::names::check(&target).is_err() {
        return Err("a reference to a path within the pack");
    }
    let fragment = match fragment {
        None => Fragment::Whole,
        Some(pointer) if pointer.is_empty() || pointer.starts_with('/') => {
            Fragment::Pointer(pointer.to_owned())
        }
        Some(other) => match other.strip_prefix("seq=").and_then(|seq| seq.parse().ok()) {
            Some(seq) => Fragment::Line(seq),
            None => return Err("#seq=<number> or #/<pointer> after the path"),
        },
    };
    Ok((target, fragment))
}

/// The lines of `content` with these sequence numbers; null where several have one.
fn lines_with(wanted: &BTreeSet<u64>, content: impl Read) -> BTreeMap<u64, Value> {
    let mut reader = BufReader::new(content);
    let mut found = BTreeMap::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return found,
            Ok(_) => {}
        }
        let value = serde_json::from_slice::<Value>(&line).unwrap_or_default();
        if let Some(seq) = value.get("seq").and_then(Value::as_u64).filter(|seq| wanted.contains(seq)) {
            let twice = found.contains_key(&seq);
            found.insert(seq, if twice { Value::Null } else { value });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_leads_within_the_pack_or_nowhere() {
        let from = "payload/runs/hidden_write/join-result.json";
        let (target, _) = parse(from, "proof-pack-reference.json#/a/b").unwrap();
        assert_eq!(target, "payload/runs/hidden_write/proof-pack-reference.json");
        for bad in
            ["../x#/a", "payload/../../etc/passwd", "/etc/passwd", "payload/a#seq=x", "payload/a#b", ""]
        {
            assert!(parse(from, bad).is_err(), "{bad}");
        }
    }
}
