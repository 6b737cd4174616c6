//! Hostile programs on the real kernel: what they try, what they get, and that it stands in the evidence.

mod borders;
mod fences;
mod forging;
mod prying;

use assay_gates::capture::{Effect, Operation};
use assay_gates::evidence::{RedactionKey, effects};
use assay_gates::files::RootPath;
use assay_gates::gate::Limits;
use assay_gates::host::calls::Policies;
use assay_gates::host::environment;
use assay_gates::host::launch::Network;
use assay_gates::host::rights::Rights;
use assay_gates::host::session::{Host, Place};
use assay_gates::host::user::MeasuredUser;
use assay_gates::measure::{Measured, Measurement, measure};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// One measured run of a python program, and everything that is known of it afterwards.
pub struct Trial {
    pub home: TempDir,
    host: Host,
    pub wanted: Measurement,
}

pub struct Seen {
    pub measured: Measured,
    pub effects: Vec<Effect>,
    pub out: String,
    pub err: String,
}

impl Trial {
    /// A gate that runs `program` in python; helpers first (`attempt`).
    pub fn new(program: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let fixture = home.path().join("fixture");
        std::fs::create_dir(&fixture).unwrap();
        std::fs::set_permissions(&fixture, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(fixture.join("hostile.py"), format!("{HELPERS}\n{program}")).unwrap();
        let held = RootPath::open(home.path(), Rights::own()).unwrap();
        let host = Host::enter_at(&home.path().join("state"), "hostile").unwrap();
        let wanted = Measurement {
            run_id: "run_hostile".to_owned(),
            agent_shim: "none".to_owned(),
            argv: ["python3", "-I", "-S", "/run/assay-gates/fixture/hostile.py"].map(Into::into).to_vec(),
            environment: environment::of_gate(&BTreeMap::new()),
            added: Vec::new(),
            user: MeasuredUser::alone(None).unwrap(),
            network: Network::None,
            place: Place::Gate { fixture, seed: BTreeMap::new() },
            hide: Vec::new(),
            allow: Vec::new(),
            limits: Limits::default(),
            timeout: Some(Duration::from_secs(60)),
            slow: 1,
            ring_bytes: assay_gates::capture::RING_BYTES,
            kernel_event: Default::default(),
            sdk_log: None,
            decision_log: None,
            archive: held.join("out/runner-hostile.tar.gz"),
            details: Some(held.join("out")),
            policies: Policies::default(),
            extract: None,
            output: held.join("out"),
            binary: env!("CARGO_BIN_EXE_assay-gates").into(),
        };
        Self { home, host, wanted }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn run(&self) -> Seen {
        let measured =
            measure(&self.host, self.wanted.clone(), &RedactionKey::ephemeral().unwrap(), &mut None).unwrap();
        let text =
            |name: &str| String::from_utf8_lossy(&std::fs::read(self.path(name)).unwrap()).into_owned();
        let effects =
            effects::read(&self.path("out/effects.ndjson")).unwrap().map(|effect| effect.unwrap()).collect();
        Seen { measured, effects, out: text("out/stdout.log"), err: text("out/stderr.log") }
    }
}

impl Seen {
    /// What the program said of each attempt: `name: result`.
    pub fn said(&self, name: &str) -> &str {
        let found = self.out.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        found.unwrap_or_else(|| panic!("no {name} in\n{}\n{}", self.out, self.err))
    }

    /// The effects of `operation` whose syscall is `syscall`.
    pub fn of<'a>(&'a self, operation: Operation, syscall: &'a str) -> impl Iterator<Item = &'a Effect> {
        self.effects.iter().filter(move |effect| effect.operation == operation && effect.syscall == syscall)
    }

    pub fn complete(&self) -> bool {
        let proof = &self.measured.summary.proof;
        assert_eq!(proof.complete, proof.reasons.is_empty());
        proof.complete
    }
}

/// `attempt(name, function)` prints `name: ok` or `name: ERRNO`.
const HELPERS: &str = r#"
import ctypes, errno, os, signal, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)

def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "syscall")
    return result

def attempt(name, function):
    try:
        function()
        print(f"{name}: ok", flush=True)
    except OSError as error:
        print(f"{name}: {errno.errorcode[error.errno]}", flush=True)
"#;
