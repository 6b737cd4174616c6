//! The law: whatever lies in a workspace, afterwards it is empty and nothing outside has changed.

use crate::host::{Host, snapshot};
use proptest::prelude::*;
use std::os::unix::fs::symlink;

#[derive(Clone, Debug)]
enum Entry {
    File(u8),
    Folder(u8),
    LinkOut(u8),
    LinkUp(u8),
    HardLink(u8),
    ReadOnlyFolder(u8),
}

fn entry() -> impl Strategy<Value = (Vec<u8>, Entry)> {
    let folder = proptest::collection::vec(0_u8..4, 0..5);
    let kind = (0_u8..6, any::<u8>()).prop_map(|(kind, name)| match kind {
        0 => Entry::File(name),
        1 => Entry::Folder(name),
        2 => Entry::LinkOut(name),
        3 => Entry::LinkUp(name),
        4 => Entry::HardLink(name),
        _ => Entry::ReadOnlyFolder(name),
    });
    (folder, kind)
}

fn build(host: &Host, entries: &[(Vec<u8>, Entry)]) {
    for (folder, entry) in entries {
        let mut place = host.workspace();
        for part in folder {
            // Links bear other names, so that nothing is ever built through one.
            place.push(format!("d{part}"));
        }
        std::fs::create_dir_all(&place).unwrap();
        // A name may be taken already: then this entry is simply not there.
        let _taken = match entry {
            Entry::File(name) => std::fs::write(place.join(format!("f{name}")), "x"),
            Entry::Folder(name) => std::fs::create_dir(place.join(format!("d{name}"))),
            Entry::LinkOut(name) => symlink(host.path("outside"), place.join(format!("l{name}"))),
            Entry::LinkUp(name) => symlink("../../../../../../outside", place.join(format!("l{name}"))),
            Entry::HardLink(name) => {
                std::fs::hard_link(host.path("outside/keep.txt"), place.join(format!("h{name}")))
            }
            Entry::ReadOnlyFolder(name) => std::fs::create_dir(place.join(format!("r{name}"))),
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_outside_the_roots_ever_changes(entries in proptest::collection::vec(entry(), 0..40)) {
        let host = Host::new();
        build(&host, &entries);
        let before = snapshot(&host.path("outside"));
        host.apply_and_find_it_clean();
        prop_assert_eq!(snapshot(&host.path("outside")), before);
        prop_assert!(host.workspace().is_dir());
    }
}
