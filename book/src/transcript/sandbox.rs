//! Where a scene is played: in namespaces of its own, so that the handbook's ports are free,
//! `ps` and `ss` show the scene and nothing else, and all of it ends with it.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The first process of the namespaces. When it ends, the kernel kills all others in them
/// (pid_namespaces(7)); and it ends when nobody holds its input any more, as when we die.
pub(crate) struct Sandbox {
    unshare: Child,
    init: String,
    user: bool,
    folder: PathBuf,
}

/// It adopts orphans, so it must be somebody who reaps them: a shell does. Process ids begin
/// where no other number of a page is. Temporary files are the scene's own, unless the
/// repository itself is one.
const INIT: &str = "ip link set lo up && echo 48000 > /proc/sys/kernel/ns_last_pid || exit
                    case $PWD in /tmp/*) ;; *) mount -t tmpfs none /tmp || exit ;; esac
                    echo ready && read -r _";

impl Sandbox {
    /// Makes the namespaces, for what is played in `folder`.
    ///
    /// # Errors
    /// With the reason why that is not possible here.
    pub(crate) fn open(folder: &Path) -> Result<Sandbox> {
        let user = !nix::unistd::geteuid().is_root();
        let mut command = Command::new("unshare");
        if user {
            command.args(["--user", "--map-root-user"]);
        }
        command
            .args(["--net", "--pid", "--fork", "--mount-proc", "--kill-child"])
            .args(["bash", "-c", INIT])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut unshare = command.spawn().context("cannot run unshare")?;
        let mut said = String::new();
        let out = unshare.stdout.take().context("stdout is piped")?;
        BufReader::new(out).read_line(&mut said)?;
        if said != "ready\n" {
            drop(unshare.stdin.take());
            let output = unshare.wait_with_output()?;
            let reason = String::from_utf8_lossy(&output.stderr);
            anyhow::bail!("no namespaces of our own: {}", reason.trim());
        }
        let id = unshare.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))
            .context("cannot find the first process")?;
        let init = children.trim().to_string();
        ensure!(!init.is_empty(), "the first process has ended");
        Ok(Sandbox {
            unshare,
            init,
            user,
            folder: folder.to_path_buf(),
        })
    }

    /// A command that will run `program` inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init]);
        if self.user {
            command.args(["--user", "--preserve-credentials"]);
        }
        let mut inside = OsString::from("--wdns=");
        inside.push(&self.folder);
        command.args(["--net", "--pid", "--mount"]);
        command.arg(inside).arg(program);
        command
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Its end is the end of all.
        drop(self.unshare.stdin.take());
        let _ = self.unshare.wait();
    }
}
