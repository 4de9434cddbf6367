//! The demonstration image: a statically linked busybox and little else.

use std::path::Path;
use std::process::Command;

use super::BuildSpec;
use crate::error::{Context, ImageError, Result};

/// Where Debian's package `busybox-static` has it.
pub const BUSYBOX: &str = "/bin/busybox";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/www:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n";

/// An image called `name` with the busybox at `binary`, which must be statically linked, under all its names in
/// `/bin`. It starts a shell.
pub fn busybox(name: &str, binary: &Path) -> Result<BuildSpec> {
    let listed = Command::new(binary).arg("--list").output().context("run", binary)?;
    if !listed.status.success() {
        return Err(ImageError::Command(format!("{} --list: {}", binary.display(), listed.status)));
    }
    let spec = BuildSpec::new(name)
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .cmd(&["sh"])
        .host_file("/bin/busybox", 0o755, binary)
        .file("/etc/passwd", 0o644, PASSWD)
        .file("/etc/group", 0o644, GROUP)
        .dir("/dev", 0o755)
        .dir("/proc", 0o555)
        .dir("/root", 0o700)
        .dir("/sys", 0o555)
        .dir("/tmp", 0o1777)
        .dir("/usr/bin", 0o755)
        .dir("/var/tmp", 0o1777)
        .dir("/www", 0o755);
    let applets = String::from_utf8_lossy(&listed.stdout).into_owned();
    let applet = |name: &&str| *name != "busybox" && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    let links = applets.lines().filter(applet);
    let spec = links.fold(spec, |spec, name| spec.symlink(&format!("/bin/{name}"), "busybox"));
    // Scripts begin with it.
    Ok(spec.symlink("/usr/bin/env", "../../bin/busybox"))
}
