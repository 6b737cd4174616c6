//! Every field of every file of a pack changed once, each time with all digests made right again, and what catches it.
//!
//! What nothing catches stands in `proof-pack/README.md`, with the reason; no more and no less. The whole table is written
//! to `mutations.tsv` in the folder of the tests.

mod edits;
mod forger;

use crate::fixture::{passed_root, provenance, put};
use assay_gates::pack;
use edits::Edit;
use forger::{Files, Forger, Unit};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

type Change = (Unit, String, Edit);

/// The files of a pack with everything in it that a workflow's has.
fn pristine(folder: &std::path::Path) -> Files {
    let root = folder.join("root");
    passed_root(&root);
    put(&root, "junit.xml", "<testsuites/>\n");
    put(&root, "cleanup.json", "{\"schema\":\"assay.gates.cleanup.v0\"}\n");
    pack::build(&root, &folder.join("pack"), None, &provenance()).unwrap();
    forger::files(&folder.join("pack"))
}

/// What caught each change, by file and field; none when nothing did.
fn table(files: &Files, folder: &std::path::Path) -> BTreeMap<(String, String), Option<&'static str>> {
    let changes: Vec<Change> = forger::units(files)
        .into_iter()
        .flat_map(|(unit, bytes)| {
            let name = unit.name();
            let all = edits::of(name.rsplit(['!', '/']).next().unwrap(), &bytes);
            all.into_iter().map(move |(field, edit)| (unit.clone(), field, edit))
        })
        .collect();
    let caught = Mutex::new(BTreeMap::new());
    let next = AtomicUsize::new(0);
    let work = |place: &str| {
        let mut forger = Forger::new(files, folder.join(place));
        while let Some((unit, field, edit)) = changes.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = forger.outcome(unit, edit);
            caught.lock().unwrap().insert((unit.name(), field.clone()), outcome);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| work("one"));
        scope.spawn(|| work("two"));
    });
    caught.into_inner().unwrap()
}

/// File and field of every row in the list of what nothing catches.
fn admitted() -> BTreeSet<(String, String)> {
    let text = include_str!("../../../proof-pack/README.md");
    let list = text.split("<!-- uncaught -->").nth(1).expect("the list of what nothing catches");
    let spans = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let mut all = BTreeSet::new();
    for row in list.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        assert!(cells.len() == 3 && cells[2].len() > 12, "a file, its fields, and the reason: {row}");
        for file in spans(cells[0]) {
            all.extend(spans(cells[1]).into_iter().map(|field| (file.clone(), field)));
        }
    }
    all
}

#[test]
fn every_field_changed_once_is_caught_or_admitted() {
    let folder = tempfile::tempdir().unwrap();
    let table = table(&pristine(folder.path()), folder.path());
    let rows: String = table
        .iter()
        .map(|((file, field), caught)| format!("{file}\t{field}\t{}\n", caught.unwrap_or("nothing")))
        .collect();
    put(env!("CARGO_TARGET_TMPDIR").as_ref(), "mutations.tsv", rows);
    assert!(table.len() > 800, "{} changes", table.len());
    let uncaught: BTreeSet<(String, String)> =
        table.iter().filter(|(_, caught)| caught.is_none()).map(|(place, _)| place.clone()).collect();
    let admitted = admitted();
    let shown = |set: Vec<&(String, String)>| {
        let mut by_file: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        set.into_iter().for_each(|(file, field)| by_file.entry(file).or_default().push(format!("`{field}`")));
        by_file
            .into_iter()
            .map(|(file, fields)| format!("| `{file}` | {} |\n", fields.join(" ")))
            .collect::<String>()
    };
    let more = shown(uncaught.difference(&admitted).collect());
    let fewer = shown(admitted.difference(&uncaught).collect());
    assert!(more.is_empty(), "nothing catches, and proof-pack/README.md does not say so:\n{more}");
    assert!(fewer.is_empty(), "proof-pack/README.md says that nothing catches, and something does:\n{fewer}");
}

/// Whoever changes nothing is accepted: what is refused is refused for the change.
#[test]
fn a_pack_that_is_made_right_again_without_a_change_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let files = pristine(folder.path());
    let mut forger = Forger::new(&files, folder.path().join("one"));
    let nowhere = Edit::Line(usize::MAX, Vec::new(), edits::Op::Another);
    for unit in
        [Unit::Member(assay_gates::evidence::archive::member::KERNEL), Unit::Run("effects.ndjson".to_owned())]
    {
        assert_eq!(forger.outcome(&unit, &nowhere), None, "{unit:?}");
    }
}
