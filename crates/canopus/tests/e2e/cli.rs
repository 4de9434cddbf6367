//! What the command line says without a cluster: exit status, standard output, standard error.

use std::path::Path;
use std::process::{Command, Stdio};

/// Runs `canopus LINE` with `DIR` standing for `dir`; what it printed has DIR again.
fn canopus(dir: &Path, line: &str) -> (i32, String, String) {
    let dir = dir.to_str().expect("a temporary directory's name");
    let mut command = Command::new(env!("CARGO_BIN_EXE_canopus"));
    command.args(line.replace("DIR", dir).split(' ')).stdin(Stdio::null());
    command.env("HOME", dir).env_remove("KUBECONFIG").env_remove("CANOPUS_DATA_DIR").env_remove("DESTDIR");
    let output = command.output().expect("canopus runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(dir, "DIR");
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn mistakes_get_clear_errors() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (line, code, said) in [
        ("kubectl get pods -o xml", 1, "unable to match a printer suitable for the output format \"xml\""),
        ("kubectl get pods --nope", 1, "error: unexpected argument '--nope' found"),
        ("kubectl --kubeconfig DIR/none get pods", 1, "DIR/none"),
        ("nope", 2, "error: unrecognized subcommand 'nope'"),
        ("up --secure-port x", 2, "invalid value 'x' for '--secure-port <PORT>'"),
        ("up --log =x= --data-dir DIR/none", 1, "error: failed to understand --log"),
        (
            "kubeconfig --data-dir DIR/none",
            1,
            "error: there is no cluster in DIR/none yet: start one with `canopus up`\n",
        ),
        ("reset --data-dir DIR", 1, "say --yes to do it without a terminal"),
        ("image import --data-dir DIR/data DIR/none", 1, "error: failed to import DIR/none"),
        ("image rm --data-dir DIR/data none", 1, "error: no such image: none\n"),
        ("install --root DIR -- --log=a\nb", 1, "must not contain control characters"),
    ] {
        let (got, stdout, stderr) = canopus(dir.path(), line);
        assert!(got == code && stdout.is_empty() && stderr.contains(said), "{line}: {got} {stdout} {stderr}");
    }
    let (code, stdout, _) = canopus(dir.path(), "reset --yes --data-dir DIR/none");
    assert_eq!((code, stdout.as_str()), (0, "DIR/none is not there: nothing to do\n"));
}

#[test]
fn a_unit_is_installed_into_a_directory_and_taken_away() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let unit = dir.path().join("etc/systemd/system/canopus.service");
    let (code, stdout, stderr) = canopus(dir.path(), "install --root DIR --data-dir /srv/c -- --node-name n");
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.starts_with("wrote DIR/etc/systemd/system/canopus.service\n"), "{stdout}");
    let text = std::fs::read_to_string(&unit).expect("the unit");
    let start = text.lines().find(|line| line.starts_with("ExecStart=")).expect("a command");
    assert!(start.ends_with(" up --data-dir /srv/c --node-name n"), "{start}");
    let (code, stdout, _) = canopus(dir.path(), "uninstall --root DIR");
    assert!(code == 0 && stdout.starts_with("removed DIR/etc/systemd/system/canopus.service\n"), "{stdout}");
    assert!(!unit.exists());
    let (code, stdout, _) = canopus(dir.path(), "uninstall --root DIR");
    assert_eq!((code, stdout.as_str()), (0, "DIR/etc/systemd/system/canopus.service is not there: nothing to do\n"));
}
