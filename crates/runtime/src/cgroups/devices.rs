//! Device access: a rule file on v1, an eBPF program of our own on v2.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::write;

/// Allows one device, or many; whatever no rule allows is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// `a` (both), `b` or `c`.
    pub kind: char,
    /// Any if unset.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// Some of `rwm`.
    pub access: String,
}

impl DeviceRule {
    pub fn new(kind: char, major: Option<u32>, minor: Option<u32>, access: &str) -> Self {
        Self { kind, major, minor, access: access.to_owned() }
    }

    /// Everything, for privileged containers.
    pub fn all() -> Vec<Self> {
        vec![Self::new('a', None, None, "rwm")]
    }

    /// What every container may use: any node may be made, but only the harmless ones opened.
    pub fn defaults() -> Vec<Self> {
        let chars = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
        let mut rules = vec![Self::new('c', None, None, "m"), Self::new('b', None, None, "m")];
        rules.extend(chars.map(|(major, minor)| Self::new('c', Some(major), Some(minor), "rwm")));
        rules.push(Self::new('c', Some(136), None, "rwm"));
        rules
    }

    fn allows_all(&self) -> bool {
        self.kind == 'a' && self.major.is_none() && self.minor.is_none()
    }

    fn line(&self) -> String {
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        format!("{} {}:{} {}", self.kind, number(self.major), number(self.minor), self.access)
    }
}

pub(super) fn apply_v1(dir: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    if rules.iter().any(DeviceRule::allows_all) {
        return write(&dir.join("devices.allow"), "a");
    }
    write(&dir.join("devices.deny"), "a")?;
    rules.iter().try_for_each(|rule| write(&dir.join("devices.allow"), rule.line()))
}

pub(super) fn apply_v2(dir: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    if rules.iter().any(DeviceRule::allows_all) {
        return Ok(());
    }
    let group = File::open(dir)?;
    attach(&group, &load(&program(rules))?)
}

/// One eBPF instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Insn {
    code: u8,
    /// Destination in the low half, source in the high one.
    regs: u8,
    off: i16,
    imm: i32,
}

const LOAD_WORD: u8 = 0x61;
const MOV_REG: u8 = 0xbf;
const MOV_IMM: u8 = 0xb7;
const AND_IMM: u8 = 0x57;
const RSH_IMM: u8 = 0x77;
const JNE_IMM: u8 = 0x55;
const EXIT: u8 = 0x95;

fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
    Insn { code, regs: dst | src << 4, off, imm }
}

/// `struct bpf_cgroup_dev_ctx` is three words: access and type, major, minor. Registers: 2 type,
/// 3 access, 4 major, 5 minor, 6 scratch. Returns 1 to allow.
fn program(rules: &[DeviceRule]) -> Vec<Insn> {
    let mut code = vec![
        insn(LOAD_WORD, 2, 1, 0, 0),
        insn(MOV_REG, 3, 2, 0, 0),
        insn(AND_IMM, 2, 0, 0, 0xffff),
        insn(RSH_IMM, 3, 0, 0, 16),
        insn(LOAD_WORD, 4, 1, 4, 0),
        insn(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules {
        let mut block = Vec::new();
        match rule.kind {
            'b' => block.push(insn(JNE_IMM, 2, 0, 0, 1)),
            'c' => block.push(insn(JNE_IMM, 2, 0, 0, 2)),
            _ => {}
        }
        let bits = [('m', 1), ('r', 2), ('w', 4)];
        let refused = bits.iter().filter(|(c, _)| !rule.access.contains(*c)).map(|(_, b)| b).sum::<i32>();
        if refused != 0 {
            block.extend([insn(MOV_REG, 6, 3, 0, 0), insn(AND_IMM, 6, 0, 0, refused), insn(JNE_IMM, 6, 0, 0, 0)]);
        }
        if let Some(major) = rule.major {
            block.push(insn(JNE_IMM, 4, 0, 0, major as i32));
        }
        if let Some(minor) = rule.minor {
            block.push(insn(JNE_IMM, 5, 0, 0, minor as i32));
        }
        block.extend([insn(MOV_IMM, 0, 0, 0, 1), insn(EXIT, 0, 0, 0, 0)]);
        let end = block.len();
        for (i, step) in block.iter_mut().enumerate().filter(|(_, s)| s.code == JNE_IMM) {
            step.off = (end - i - 1) as i16;
        }
        code.extend(block);
    }
    code.extend([insn(MOV_IMM, 0, 0, 0, 0), insn(EXIT, 0, 0, 0, 0)]);
    code
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

#[repr(C)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// Calls bpf(2) with one of its attribute structs.
fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<i32> {
    // SAFETY: `attr` is a live, fully initialised prefix of `union bpf_attr` of the size passed; the
    // kernel treats what lies beyond as zero, and every pointer inside outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done as i32) }
}

fn load(code: &[Insn]) -> io::Result<OwnedFd> {
    let attr = LoadAttr {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: code.len() as u32,
        insns: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..LoadAttr::default()
    };
    let fd = bpf(BPF_PROG_LOAD, &attr)?;
    // SAFETY: the kernel has just returned this descriptor and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn attach(group: &File, program: &OwnedFd) -> io::Result<()> {
    let attr = AttachAttr {
        target_fd: group.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &attr).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_as_v1_spells_them() {
        let lines: Vec<String> = DeviceRule::defaults().iter().map(DeviceRule::line).collect();
        assert_eq!(lines[0], "c *:* m");
        assert_eq!(lines[2], "c 1:3 rwm");
        assert_eq!(lines.last().unwrap(), "c 136:* rwm");
    }

    #[test]
    fn the_program_refuses_what_no_rule_allows() {
        let cgroups = crate::cgroups::Cgroups::probe().unwrap();
        let path = format!("canopus-bpftest-{}", std::process::id());
        let Some(dir) = cgroups.v2_dir(&path) else { return };
        std::fs::create_dir(&dir).unwrap();
        apply_v2(&dir, &[DeviceRule::new('c', Some(1), Some(3), "rw")]).unwrap();
        let script = "echo $$ > $0/cgroup.procs; echo x > /dev/null && ! head -c1 /dev/zero";
        let status = std::process::Command::new("sh").args(["-c", script]).arg(&dir).status().unwrap();
        cgroups.kill(&path);
        cgroups.remove(&path).unwrap();
        assert!(status.success());
    }
}
