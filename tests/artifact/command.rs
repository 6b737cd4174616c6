//! `assay-gates upload` as a job calls it: outputs, summary, masks, proxies, exit codes, memory.

use crate::harness::{NAME, token};
use crate::server::{Fault, Kind, SIGNATURE, Server};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The command with a job's environment and nothing else.
fn command(server: &Server, folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay-gates"));
    command
        .current_dir(folder)
        .env_clear()
        .env("ACTIONS_RESULTS_URL", &server.address)
        .env("ACTIONS_RUNTIME_TOKEN", token().reveal())
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_RUN_ID", "42")
        .env("GITHUB_RUN_ATTEMPT", "2")
        .env("GITHUB_REPOSITORY", "owner/name")
        .env("GITHUB_SERVER_URL", "https://github.com")
        .env("GITHUB_API_URL", &server.address)
        .env("GITHUB_RETENTION_DAYS", "90")
        .env("GITHUB_OUTPUT", folder.join("output"))
        .env("GITHUB_STEP_SUMMARY", folder.join("summary"));
    command
}

fn pack(folder: &Path) {
    std::fs::create_dir_all(folder.join("pack/payload")).unwrap();
    std::fs::write(folder.join("pack/manifest.json"), "{}\n").unwrap();
    std::fs::write(folder.join("pack/payload/a.log"), "a\n").unwrap();
}

fn text(output: &Output) -> (String, String) {
    (String::from_utf8(output.stdout.clone()).unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

#[test]
fn a_job_gets_the_artifacts_id_address_and_digest_and_the_rest_api_confirms_them() {
    let folder = tempfile::tempdir().unwrap();
    pack(folder.path());
    let server = Server::start(Kind::Github);
    let output = command(&server, folder.path())
        .env("GITHUB_TOKEN", "rest-token")
        .args(["upload", "pack", "--retention-days", "365", "--format", "json"])
        .output()
        .unwrap();
    let (stdout, stderr) = text(&output);
    assert!(output.status.success(), "{stderr}");
    let stored: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(assay_gates::evidence::schema::faults("assay.gates.artifact.v0", &stored).unwrap(), []);
    let digest = assay_gates::files::sha256(&server.stored(NAME).unwrap()).to_string();
    assert_eq!(stored["artifact_digest"], digest);
    assert_eq!(stored["retention_days"], 90, "capped: {stderr}");
    assert_eq!(stored["confirmed_by"], serde_json::json!(["service listing", "REST API"]));
    let outputs = std::fs::read_to_string(folder.path().join("output")).unwrap();
    assert_eq!(
        outputs,
        format!(
            "artifact-id=1\nartifact-url=https://github.com/owner/name/actions/runs/42/artifacts/1\nartifact-digest={digest}\n\
             artifact-name={NAME}\nrun-id=42\nrun-attempt=2\nretention-days=90\n"
        )
    );
    let summary = std::fs::read_to_string(folder.path().join("summary")).unwrap();
    assert!(summary.contains(&digest) && summary.contains("REST API"), "{summary}");
    // The masks come first, and nothing after them shows what they hide.
    let shown: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("::add-mask::")).collect();
    assert!(
        stderr.starts_with("::add-mask::") && stderr.contains(&format!("::add-mask::{SIGNATURE}")),
        "{stderr}"
    );
    for secret in [token().reveal(), SIGNATURE, "rest-token"] {
        assert!(
            !shown.join("\n").contains(secret) && !stdout.contains(secret) && !outputs.contains(secret),
            "{stderr}"
        );
    }
}

/// An upload with a REST token, where the REST API's first answer is this one.
fn confirmed(token: &str, listed: Option<Fault>) -> (Output, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    pack(folder.path());
    let server = Server::start(Kind::Github);
    // Looked up, made, sent, listed, finalized, confirmed by the service: then comes REST.
    if let Some(fault) = listed {
        server.fault(6, fault);
    }
    let mut upload = command(&server, folder.path());
    upload.env("GITHUB_TOKEN", token).args(["upload", "pack", "--format", "json"]);
    (upload.output().unwrap(), server.steps())
}

#[test]
fn an_artifact_that_the_rest_api_lists_with_other_bytes_fails_the_upload() {
    let wrong = [
        serde_json::json!({"id": 1, "size_in_bytes": 3}),
        serde_json::json!({"id": 1, "digest": format!("sha256:{}", "0".repeat(64))}),
    ];
    for artifact in wrong {
        let list = serde_json::json!({"total_count": 1, "artifacts": [crate::answers::answer("artifact", artifact)]});
        crate::answers::check("/repos/owner/name/actions/runs/42/artifacts", 200, &list);
        let (output, steps) = confirmed("rest-token", Some(Fault::Answer(200, "", list.to_string().leak())));
        let (stdout, stderr) = text(&output);
        assert!(steps[6].starts_with("GET /repos/"), "{steps:?}");
        assert_eq!(output.status.code(), Some(14), "{stdout}{stderr}");
        assert!(stderr.contains("error[AG806]"), "{stderr}");
    }
}

#[test]
fn an_upload_stands_when_the_rest_api_says_nothing_of_it() {
    let (output, steps) = confirmed("another-token", None);
    let (stdout, stderr) = text(&output);
    assert!(steps[6].starts_with("GET /repos/"), "{steps:?}");
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.contains("not confirmed through the REST API") && stderr.contains("Bad credentials"),
        "{stderr}"
    );
    let stored: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(stored["confirmed_by"], serde_json::json!(["service listing"]));
}

#[test]
fn a_failed_upload_leaves_the_pack_says_how_to_try_again_and_exits_with_13() {
    let folder = tempfile::tempdir().unwrap();
    pack(folder.path());
    let server = Server::start(Kind::Github);
    server.fault(1, Fault::Answer(400, "", r#"{"code":"invalid_argument","msg":"no"}"#));
    let output = command(&server, folder.path()).args(["upload", "pack"]).output().unwrap();
    let (_, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(13), "{stderr}");
    assert!(
        stderr.contains("error[AG804]") && stderr.contains("assay-gates upload pack --overwrite"),
        "{stderr}"
    );
    assert!(folder.path().join("pack/manifest.json").exists() && folder.path().join("pack.zip").exists());
    assert!(!folder.path().join("output").exists());
}

#[test]
fn outside_a_job_the_missing_variable_is_named_with_the_reason_why_it_may_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    pack(folder.path());
    let server = Server::start(Kind::Github);
    let output = command(&server, folder.path())
        .env_remove("ACTIONS_RUNTIME_TOKEN")
        .args(["upload", "pack"])
        .output()
        .unwrap();
    let (_, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(13));
    assert!(stderr.contains("ACTIONS_RUNTIME_TOKEN") && stderr.contains("local action"), "{stderr}");
}

#[test]
fn a_proxy_is_used_for_the_service_and_for_the_blob_store() {
    let folder = tempfile::tempdir().unwrap();
    pack(folder.path());
    // The names resolve nowhere: only a proxy can reach them. The server gives addresses of its own, through it too.
    let server = Server::start(Kind::Github);
    let output = command(&server, folder.path())
        .env("ACTIONS_RESULTS_URL", "http://results.invalid/")
        .env("HTTP_PROXY", &server.address)
        .env("http_proxy", &server.address)
        .args(["upload", "pack"])
        .output()
        .unwrap();
    let (_, stderr) = text(&output);
    assert!(output.status.success(), "{stderr}");
    let requests = server.requests();
    assert!(requests.iter().all(|one| one.headers.contains_key("host")));
    assert!(requests.iter().any(|one| one.headers["host"] == "results.invalid"));
    assert!(server.stored(NAME).is_some());
}

#[test]
fn a_summary_that_would_pass_one_mebibyte_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    pack(folder.path());
    std::fs::write(folder.path().join("summary"), "x".repeat(1024 * 1024 - 10)).unwrap();
    let server = Server::start(Kind::Github);
    let output = command(&server, folder.path()).args(["upload", "pack"]).output().unwrap();
    let (_, stderr) = text(&output);
    assert!(output.status.success() && stderr.contains("nothing is added"), "{stderr}");
    assert_eq!(std::fs::metadata(folder.path().join("summary")).unwrap().len(), 1024 * 1024 - 10);
}

#[test]
fn a_folder_that_is_no_pack_and_a_name_that_no_service_takes_are_refused_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    pack(folder.path());
    let server = Server::start(Kind::Github);
    let nothing = command(&server, folder.path()).args(["upload", "."]).output().unwrap();
    assert_eq!(nothing.status.code(), Some(14));
    let name = command(&server, folder.path()).args(["upload", "pack", "--name", "a/b"]).output().unwrap();
    assert_eq!(name.status.code(), Some(2));
    assert!(server.steps().is_empty());
}

/// Peak resident memory of an upload of so many bytes, in KiB.
#[cfg(target_os = "linux")]
fn peak(bytes: u64) -> i64 {
    let folder = tempfile::tempdir().unwrap();
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut pack = zip::ZipWriter::new(std::fs::File::create(folder.path().join("pack.zip")).unwrap());
    for (name, bytes) in [("manifest.json", 3), ("payload/a", bytes)] {
        pack.start_file(name, stored).unwrap();
        std::io::copy(&mut std::io::Read::take(std::io::repeat(b'a'), bytes), &mut pack).unwrap();
    }
    pack.finish().unwrap();
    let server = Server::start_keeping(Kind::Github, false);
    let mut child = command(&server, folder.path())
        .args(["upload", "pack.zip"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The high-water mark only rises, so what is read last before the end is the peak but for the last milliseconds.
    let mut peak = 0;
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let mark =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map(|text| text.replace("kB", ""));
        peak = peak.max(mark.map_or(0, |text| text.trim().parse().unwrap()));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return peak;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_pack() {
    let (small, large) = (peak(1000), peak(96 * 1024 * 1024));
    assert!(large - small <= 64 * 1024, "{small} KiB for 1000 bytes, {large} KiB for 96 MiB");
}
