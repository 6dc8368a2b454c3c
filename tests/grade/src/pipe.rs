//! The pipes of another process, seen from outside: how full they are, and
//! made so small that they fill soon. Linux only; elsewhere there are none.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::libc;
use nix::unistd::Pid;

use crate::check::Deadline;

/// A pipe that another process has open. Nothing is read from it.
#[derive(Debug)]
pub struct Pipe(File);

impl Pipe {
    /// The pipe behind a descriptor of a process; `None` if that is not one.
    #[must_use]
    pub fn of(pid: Pid, descriptor: i32) -> Option<Self> {
        Pipe::at(Path::new(&format!("/proc/{pid}/fd/{descriptor}")))
    }

    /// The pipes that a process has made for itself: all that it has not
    /// inherited from the grader.
    #[must_use]
    pub fn own(pid: Pid) -> Vec<Self> {
        let inherited: Vec<_> = links(Pid::this()).map(|(_, link)| link).collect();
        links(pid)
            .filter(|(_, link)| !inherited.contains(link))
            .filter_map(|(path, _)| Pipe::at(&path))
            .collect()
    }

    fn at(path: &Path) -> Option<Self> {
        let link = fs::read_link(path).ok()?;
        if !link.to_str()?.starts_with("pipe:") {
            return None;
        }
        // Opening such a link opens the pipe itself, for reading here.
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        options.open(path).ok().map(Pipe)
    }

    /// Leaves room for as little as the system allows: a page.
    pub fn shrink(&self) {
        // At worst it stays as it is, and takes longer to fill.
        #[cfg(target_os = "linux")]
        let _ = nix::fcntl::fcntl(&self.0, nix::fcntl::FcntlArg::F_SETPIPE_SZ(1));
    }

    /// How many bytes it holds at most.
    #[must_use]
    pub fn capacity(&self) -> usize {
        #[cfg(target_os = "linux")]
        if let Ok(size) = nix::fcntl::fcntl(&self.0, nix::fcntl::FcntlArg::F_GETPIPE_SZ) {
            return size as usize;
        }
        usize::MAX
    }

    /// How many bytes wait in it to be read.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let mut waiting: libc::c_int = 0;
        // SAFETY: FIONREAD stores an int where its argument points to, and
        // `waiting` outlives the call.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::FIONREAD, &raw mut waiting) };
        waiting as usize
    }

    /// Whether not one byte more would go in.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.waiting() >= self.capacity()
    }

    /// Waits until more than so many bytes wait; says whether they came
    /// before the deadline.
    #[must_use]
    pub fn holds_more_than(&self, bytes: usize, deadline: Deadline) -> bool {
        while self.waiting() <= bytes {
            if deadline.left().is_zero() {
                return false;
            }
            std::thread::sleep(Duration::from_micros(20));
        }
        true
    }
}

/// The open descriptors of a process: where they are, and what they refer to.
fn links(pid: Pid) -> impl Iterator<Item = (PathBuf, PathBuf)> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter();
    let paths = open.flatten().flatten().map(|entry| entry.path());
    paths.filter_map(|path| fs::read_link(&path).ok().map(|link| (path, link)))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_pipe_is_seen_through_proc_and_nothing_is_taken_from_it() {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let seen = Pipe::of(Pid::this(), writer.as_raw_fd()).expect("the same pipe");
        seen.shrink();
        writer.write_all(b"twelve bytes").expect("room");
        assert_eq!((seen.waiting(), seen.is_full()), (12, false));
        assert!(seen.holds_more_than(11, Deadline::after(Duration::ZERO)));
        let rest = vec![0; seen.capacity() - 12];
        writer.write_all(&rest).expect("room");
        assert!(seen.is_full());
        assert!(Pipe::of(Pid::this(), reader.as_raw_fd()).is_some_and(|same| same.is_full()));
    }

    #[test]
    fn a_file_is_no_pipe() {
        let file = File::open("/dev/null").expect("there is one");
        assert!(Pipe::of(Pid::this(), file.as_raw_fd()).is_none());
    }
}
