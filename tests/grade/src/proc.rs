//! What /proc tells about a group of processes: memory, descriptors, zombies,
//! and whether they did anything at all.
//!
//! A process that makes a system call must be running to make it. The kernel
//! counts for each thread how often it was taken from a CPU, and for how many
//! nanoseconds it had one; so in a span in which no figure moved, nothing ran,
//! and zero system calls were made. It needs no strace and disturbs nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::unistd::Pid;

use crate::check::{Result, Stop};

/// Says whether this system has what this module reads.
///
/// # Errors
/// A reason to skip, where it has not.
pub fn available() -> Result {
    if Path::new("/proc/self/schedstat").exists() && Path::new("/proc/self/fd").exists() {
        Ok(())
    } else {
        Err(Stop::skipped("looks into Linux's /proc, which is not here"))
    }
}

/// A process of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: Pid,
    /// Its parent; 1 or another reaper once the true parent has died.
    pub parent: Pid,
    /// It has ended, and its parent has not waited for it.
    pub zombie: bool,
}

/// All processes of a group but its leader, which is the warden.
#[must_use]
pub fn group(group: Pid) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|&id| id != group.as_raw())
        .filter_map(|id| process(id, group))
        .collect()
}

/// Reads /proc/PID/stat, `PID (NAME) STATE PARENT GROUP ...`; the name may
/// hold anything, so the fields are counted from its last parenthesis.
fn process(id: i32, wanted: Pid) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let group: i32 = fields.next()?.parse().ok()?;
    (group == wanted.as_raw()).then_some(Process {
        pid: Pid::from_raw(id),
        parent: Pid::from_raw(parent),
        zombie: state == "Z" || state == "X",
    })
}

/// The resident memory of the processes, in bytes (VmRSS of proc(5)). Pages
/// that two of them share count twice.
#[must_use]
pub fn resident(processes: &[Process]) -> u64 {
    let kibibytes = processes.iter().filter_map(|process| {
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).ok()?;
        field(&status, "VmRSS:")
    });
    kibibytes.sum::<u64>() * 1024
}

/// The open descriptors of the processes, together.
#[must_use]
pub fn descriptors(processes: &[Process]) -> usize {
    let counts = processes.iter().filter_map(|process| {
        let open = fs::read_dir(format!("/proc/{}/fd", process.pid)).ok()?;
        Some(open.count())
    });
    counts.sum()
}

/// The TCP sockets with one local port, by their inodes: what `socket:[12345]`
/// in /proc/PID/fd refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// Those that listen.
    pub listening: BTreeSet<u64>,
    /// All others: the server's ends of its connections.
    pub connected: BTreeSet<u64>,
}

impl Sockets {
    /// The sockets of `port` now, whoever has them (/proc/net/tcp).
    #[must_use]
    pub fn of_port(port: u16) -> Self {
        /// The state of a listener in that table: TCP_LISTEN.
        const LISTEN: &str = "0A";
        let port = format!(":{port:04X}");
        let mut sockets = Sockets::default();
        let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            let [_, local, _, state, _, _, _, _, _, inode, ..] = fields[..] else {
                continue;
            };
            // A connection that no process has any more is without an inode.
            if let Ok(inode @ 1..) = inode.parse()
                && local.ends_with(&port)
            {
                if state == LISTEN {
                    sockets.listening.insert(inode);
                } else {
                    sockets.connected.insert(inode);
                }
            }
        }
        sockets
    }
}

/// The inodes of the sockets that a process has open.
#[must_use]
pub fn open_sockets(pid: Pid) -> BTreeSet<u64> {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return BTreeSet::new();
    };
    let links = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let inodes = links.filter_map(|link| {
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        inode.parse().ok()
    });
    inodes.collect()
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Whether some process of this machine receives UDP on `port`; `None` where
/// the system has no list of such sockets. To try to bind the port instead
/// would keep it, for a moment, from the program that is about to.
#[must_use]
pub fn receives(port: u16) -> Option<bool> {
    let lists = ["/proc/net/udp", "/proc/net/udp6"];
    let mut lists = lists.iter().filter_map(|it| fs::read_to_string(it).ok());
    let listed = |list: String| {
        // NUMBER: ADDRESS:PORT ..., both hexadecimal.
        let mut locals = list.lines().skip(1).filter_map(|line| {
            let local = line.split_ascii_whitespace().nth(1)?;
            u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()
        });
        locals.any(|local| local == port)
    };
    let first = listed(lists.next()?);
    Some(first || lists.any(listed))
}

/// What the threads of a group had done at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot(BTreeMap<i32, Work>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Work {
    /// Voluntary and involuntary context switches.
    switches: u64,
    /// Nanoseconds on a CPU.
    nanoseconds: u64,
}

/// What a group did between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// How often one of its threads was given a CPU and left it again;
    /// a thread that was born or that died counts once at least.
    pub wakeups: u64,
    /// The time that its threads had on a CPU, together.
    pub cpu: Duration,
}

impl Activity {
    /// Nothing ran: no system call was made.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Activity::default()
    }
}

impl Snapshot {
    /// The figures of every thread of every process, now.
    #[must_use]
    pub fn of(processes: &[Process]) -> Self {
        let mut threads = BTreeMap::new();
        for process in processes {
            let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", process.pid)) else {
                continue;
            };
            for task in tasks.flatten() {
                if let Some((id, work)) = work(&task.path()) {
                    threads.insert(id, work);
                }
            }
        }
        Snapshot(threads)
    }

    /// The number of threads, of all processes together.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.0.len()
    }

    /// What was done since an earlier moment.
    #[must_use]
    pub fn since(&self, earlier: &Snapshot) -> Activity {
        let mut activity = Activity::default();
        for (id, now) in &self.0 {
            let before = earlier.0.get(id);
            let born = u64::from(before.is_none());
            let before = before.copied().unwrap_or_default();
            activity.wakeups += now.switches.saturating_sub(before.switches).max(born);
            activity.cpu +=
                Duration::from_nanos(now.nanoseconds.saturating_sub(before.nanoseconds));
        }
        let gone = earlier.0.keys().filter(|id| !self.0.contains_key(id));
        activity.wakeups += gone.count() as u64;
        activity
    }
}

fn work(task: &Path) -> Option<(i32, Work)> {
    let id = task.file_name()?.to_str()?.parse().ok()?;
    let status = fs::read_to_string(task.join("status")).ok()?;
    let voluntary = field(&status, "voluntary_ctxt_switches:")?;
    let involuntary = field(&status, "nonvoluntary_ctxt_switches:")?;
    let schedstat = fs::read_to_string(task.join("schedstat")).ok()?;
    // On a CPU, and waiting for one: a spin is a spin on a busy machine, too.
    let mut times = schedstat.split_ascii_whitespace();
    let mut time = || times.next()?.parse::<u64>().ok();
    let nanoseconds = time()? + time()?;
    let switches = voluntary + involuntary;
    Some((
        id,
        Work {
            switches,
            nanoseconds,
        },
    ))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::process::Command;

    use super::*;
    use crate::check::Deadline;
    use crate::job::{Job, Limits};

    fn shell(script: &str) -> Job {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let job = Job::start(command, Limits::default()).expect("a shell");
        let soon = Deadline::after(Duration::from_secs(5));
        let line = job.stdout.wait_for_line(soon, |line| line == "ready");
        assert!(line.is_some(), "the script says when it is ready");
        job
    }

    fn activity(job: &Job, time: Duration) -> Activity {
        let before = Snapshot::of(&group(job.group()));
        std::thread::sleep(time);
        Snapshot::of(&group(job.group())).since(&before)
    }

    fn rests(job: &Job) -> bool {
        let soon = Deadline::after(Duration::from_secs(5));
        let moment = Duration::from_millis(100);
        soon.until(|| activity(job, moment).is_none().then_some(()))
            .is_some()
    }

    #[test]
    fn a_sleeper_does_nothing() {
        let job = shell("echo ready; read -r _ < /dev/zero & sleep 1000");
        drop(job);
        let job = shell("sleep 1000 & echo ready; wait");
        assert!(rests(&job), "a sleeping shell and its child are at rest");
        assert!(activity(&job, Duration::from_millis(500)).is_none());
    }

    /// The polling loop of many an example, in a child of the process that
    /// was started: this is what the idle checks must not overlook.
    #[test]
    fn a_child_that_polls_is_seen() {
        let job = shell("(while :; do sleep 0.02; done) & echo ready; wait");
        assert!(!rests(&job), "it looks at rest");
        let activity = activity(&job, Duration::from_secs(1));
        assert!(activity.wakeups >= 20, "{activity:?}");
        assert!(!activity.cpu.is_zero(), "{activity:?}");
    }

    /// A thread of our own that polls a thousand times a second.
    #[test]
    fn a_thread_that_polls_is_seen() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let poller = std::thread::spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(1))
                == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            {}
        });
        let own = [Process {
            pid: nix::unistd::getpid(),
            parent: nix::unistd::getppid(),
            zombie: false,
        }];
        let before = Snapshot::of(&own);
        std::thread::sleep(Duration::from_millis(500));
        let activity = Snapshot::of(&own).since(&before);
        drop(stop);
        poller.join().expect("no panic");
        assert!(activity.wakeups >= 100, "{activity:?}");
    }

    #[test]
    fn a_spin_without_a_system_call_shows_as_time_on_a_cpu() {
        let job = shell("echo ready; while :; do :; done");
        let activity = activity(&job, Duration::from_millis(500));
        assert!(activity.cpu >= Duration::from_millis(50), "{activity:?}");
    }

    #[test]
    fn zombies_are_told_from_the_living() {
        // The shell becomes a sleeper that never waits for its child.
        let job = shell("true & echo ready; exec sleep 1000");
        let soon = Deadline::after(Duration::from_secs(5));
        let zombie = soon.until(|| {
            group(job.group())
                .into_iter()
                .find(|process| process.zombie)
        });
        assert_eq!(zombie.map(|zombie| zombie.parent), Some(job.pid()));
    }

    #[test]
    fn a_socket_is_found_by_its_port_in_the_process_that_has_it() {
        let own = nix::unistd::getpid();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let _client = TcpStream::connect(address).expect("a connection");
        let (connection, _) = listener.accept().expect("a client");
        let sockets = Sockets::of_port(address.port());
        // The client's end has the port, too, but as that of its peer.
        assert_eq!((sockets.listening.len(), sockets.connected.len()), (1, 1));
        assert!(sockets.listening.is_subset(&open_sockets(own)));
        drop((connection, listener));
        assert!(sockets.connected.is_disjoint(&open_sockets(own)));
    }

    #[test]
    fn a_udp_socket_is_seen_as_long_as_it_is_open() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let port = socket.local_addr().expect("an address").port();
        assert_eq!(receives(port), Some(true));
        drop(socket);
        // A process that is just being started may have it for a moment more.
        let soon = Deadline::after(Duration::from_secs(5));
        let gone = soon.until(|| (receives(port) == Some(false)).then_some(()));
        assert!(gone.is_some());
    }

    #[test]
    fn memory_and_descriptors_of_a_group_are_counted() {
        let job = shell("sleep 1000 3</dev/null 4</dev/null & echo ready; wait");
        let processes = group(job.group());
        assert_eq!(processes.len(), 2);
        let soon = Deadline::after(Duration::from_secs(5));
        let counted = soon.until(|| (descriptors(&processes) >= 8).then_some(()));
        assert!(counted.is_some(), "{}", descriptors(&processes));
        assert!(resident(&processes) > 100_000);
    }
}
