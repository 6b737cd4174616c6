//! One measured run of a shell script, without a capture, in a state folder of its own.

use assay_gates::files::RootPath;
use assay_gates::gate::Limits;
use assay_gates::host::environment;
use assay_gates::host::launch::Network;
use assay_gates::host::rights::Rights;
use assay_gates::host::session::{Ended, Host, Place, Session, Spec};
use assay_gates::host::user::MeasuredUser;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

pub struct Bench {
    pub home: TempDir,
    pub host: Host,
}

impl Bench {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let fixture = home.path().join("fixture");
        std::fs::create_dir(&fixture).unwrap();
        std::fs::set_permissions(&fixture, std::fs::Permissions::from_mode(0o755)).unwrap();
        let host = Host::enter_at(&home.path().join("state"), "test").unwrap();
        Self { home, host }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A gate that runs `script` in a shell.
    pub fn gate(&self, script: &str) -> Spec {
        self.spec(script, Place::Gate { fixture: self.path("fixture"), seed: BTreeMap::new() })
    }

    pub fn spec(&self, script: &str, place: Place) -> Spec {
        let held = RootPath::open(self.home.path(), Rights::own()).unwrap();
        Spec {
            argv: ["sh", "-c", script].map(OsString::from).to_vec(),
            environment: environment::of_gate(&BTreeMap::new()),
            user: MeasuredUser::alone(None).unwrap(),
            network: Network::None,
            place,
            control: None,
            hide: vec![self.home.path().to_owned()],
            timeout: Some(Duration::from_secs(60)),
            allow: Vec::new(),
            limits: Limits { processes: 64, ..Limits::default() },
            launcher: env!("CARGO_BIN_EXE_assay-gates").into(),
            stdout: held.join("stdout.log"),
            stderr: held.join("stderr.log"),
            output_bytes: 64 * 1024,
        }
    }

    /// Runs to the end, removes the cgroup and checks that it is gone.
    pub fn run(&self, spec: Spec) -> Ended {
        let session = Session::prepare(&self.host, spec).unwrap();
        let cgroup = session.cgroup().path().to_owned();
        let ended = session.spawn().unwrap().wait().unwrap();
        ended.remove().unwrap();
        assert!(!cgroup.exists(), "{} stayed", cgroup.display());
        ended
    }

    /// Standard output of a gate that runs `script`, which must succeed.
    pub fn output(&self, script: &str) -> String {
        let ended = self.run(self.gate(script));
        let said = std::fs::read_to_string(&ended.stdout.path).unwrap();
        let complained = std::fs::read_to_string(&ended.stderr.path).unwrap();
        assert!(ended.outcome.success(), "{:?}\n{said}\n{complained}", ended.outcome);
        said
    }
}
