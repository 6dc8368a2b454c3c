//! A server under examination, from its start to its end.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::budget;
use crate::catalog::Protocol;
use crate::check::{Deadline, During, Ending, Failure, Result};
use crate::fate::{self, Change};
use crate::job::{Job, Limits, describe};
use crate::proc::{self, Process, Snapshot};
use crate::program::{Kind, Lease, Program};
use crate::transcript::Held;

/// A server must listen after this long.
const START: Duration = Duration::from_secs(5);

/// A program that is to refuse its command line must have ended after this.
const REFUSAL: Duration = Duration::from_secs(3);

/// Why a check that needs a running server has none.
const NOT_STARTED: &str = "the program does not start, does not say where it listens (flushed, and with the \
                           real port), or does not listen where it is told to";

/// The lines of standard error that a failure shows, and half as many of
/// standard output, where most are about connections that were in order.
const TAIL: usize = 6;

/// A server about to be started.
#[derive(Debug)]
pub struct Launch<'a> {
    program: &'a Program,
    deadline: Deadline,
    port: u16,
    arguments: Vec<OsString>,
    limits: Limits,
    ready: Option<&'static str>,
}

impl<'a> Launch<'a> {
    /// `program` on a free port, with the limits of the grader.
    #[must_use]
    pub fn new(program: &'a Program, deadline: Deadline) -> Self {
        Launch {
            program,
            deadline,
            port: 0,
            arguments: Vec::new(),
            limits: Limits::default(),
            ready: None,
        }
    }

    /// For a program that has no socket, and is told no address: it is ready
    /// when it says a line that begins like this.
    #[must_use]
    pub fn ready(mut self, line: &'static str) -> Self {
        self.ready = Some(line);
        self
    }

    /// Starts it with SIGINT and SIGQUIT ignored, as a script's `&` does.
    #[must_use]
    pub fn in_background(mut self) -> Self {
        self.limits.in_background = true;
        self
    }

    /// Listens on this port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Adds arguments, such as `--max-procs 3`; for programs of ours only.
    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(OsString::from));
        self
    }

    /// Allows the server this many descriptors (`ulimit -n`).
    #[must_use]
    pub fn descriptors(mut self, descriptors: u64) -> Self {
        self.limits.descriptors = Some(descriptors);
        self
    }

    /// Allows its user this many processes in all (`ulimit -u`). It does not
    /// bind root: see [`user`](Self::user).
    #[must_use]
    pub fn processes(mut self, processes: u64) -> Self {
        self.limits.processes = Some(processes);
        self
    }

    /// Runs it as another user, which takes root; for programs of ours only.
    #[must_use]
    pub fn user(mut self, user: u32) -> Self {
        self.limits.user = Some(user);
        self
    }

    /// Starts the server and waits until it listens.
    ///
    /// # Errors
    /// A failure when it does not, with what it said; a reason to skip when
    /// the system does not allow as many descriptors.
    pub fn start(self) -> Result<Server> {
        if let Some(needed) = self.limits.descriptors
            && needed > budget::limit()
        {
            return Err(budget::too_few(needed));
        }
        if let Some(line) = self.ready {
            let server = self.spawn(0)?;
            server.is_ready(line, self.deadline.within(START))?;
            return Ok(server);
        }
        match self.program.kind {
            Kind::Ours(_) => {
                let mut server = self.spawn(self.port)?;
                server.address = server.announced(self.deadline.within(START))?;
                Ok(server)
            }
            Kind::Foreign(_) => {
                let protocol = self.program.traits.protocol;
                let lease = match self.port {
                    0 => Some(Lease::new(protocol).during("looking for a free port")?),
                    _ => None,
                };
                let port = lease.as_ref().map_or(self.port, Lease::port);
                let mut server = self.spawn(port)?;
                server.lease = lease;
                server.wait_until_reachable(protocol, self.deadline.within(START))?;
                Ok(server)
            }
        }
    }

    fn spawn(&self, port: u16) -> Result<Server> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let directory = TempDir::new().during("making a directory for the server")?;
        let mut program = self.program.clone();
        // A program of ours finds an empty directory; another one may need
        // the files around it, which its command line names.
        if let Kind::Ours(executable) = &mut program.kind
            && self.limits.user.is_some()
        {
            *executable = for_everyone(executable, directory.path())?;
        }
        let mut command = match self.ready {
            None => program.command(address, &self.arguments),
            Some(_) => program.command_without_address(&self.arguments),
        };
        // What it leaves behind, killed or not, goes with the directory.
        command.env("TMPDIR", directory.path());
        if matches!(program.kind, Kind::Ours(_)) {
            command.current_dir(directory.path());
        }
        let job = Job::start(command, self.limits).map_err(|error| {
            Failure::new(format!("starting {}", program.name))
                .came(error.to_string())
                .because("the program is not there, or cannot be run")
        })?;
        Ok(Server {
            job: RefCell::new(job),
            address,
            lease: None,
            _directory: directory,
        })
    }
}

/// Opens `directory` to every user, and puts a copy of a program there: root's
/// own may lie where nobody else can go.
fn for_everyone(executable: &Path, directory: &Path) -> Result<PathBuf> {
    let what = "copying the program to where another user can run it";
    let copy = directory.join("program");
    // By a process of its own: a file that is open for writing cannot be run
    // (ETXTBSY), and a program that another check forks just now would have
    // our descriptor for a moment.
    let status = Command::new("cp").arg(executable).arg(&copy).status();
    let status = status.during(what)?;
    if !status.success() {
        return Failure::new(what).came(format!("cp: {status}")).stop();
    }
    for path in [directory, &copy] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).during(what)?;
    }
    Ok(copy)
}

/// A running server. Dropping it ends it with all its children.
#[derive(Debug)]
pub struct Server {
    job: RefCell<Job>,
    address: SocketAddr,
    /// Declared after the job, and so given back after its end.
    lease: Option<Lease>,
    _directory: TempDir,
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process that was started, which a fork server's children have as
    /// their parent.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.job.borrow().pid()
    }

    fn announced(&self, deadline: Deadline) -> Result<SocketAddr> {
        let wanted = "Listening on 127.0.0.1:PORT, with the real port";
        let failure = Failure::new("waiting for the first line on standard output")
            .expected(wanted)
            .because(NOT_STARTED);
        let Some(line) = self.job.borrow().stdout.wait_for_line(deadline, |_| true) else {
            return self
                .with_last_words(failure.came("no line, neither with a port nor without"))
                .stop();
        };
        let address = line.strip_prefix("Listening on ");
        match address.and_then(|address| address.parse::<SocketAddr>().ok()) {
            Some(address) if address.port() != 0 => Ok(address),
            _ => self.with_last_words(failure.came(line)).stop(),
        }
    }

    fn is_ready(&self, line: &str, deadline: Deadline) -> Result {
        match self.wait_for_line(deadline, |said| said.starts_with(line)) {
            Some(_) => Ok(()),
            None => {
                let failure = Failure::new("waiting until the program is ready")
                    .expected(format!("a line that begins with {line:?}, flushed"))
                    .came("none")
                    .because("the program does not start, or does not say that it waits");
                self.with_last_words(failure).stop()
            }
        }
    }

    /// Waits until the port is served: a connection is made (and closed at
    /// once), or, as UDP has none, the system knows of a socket there.
    fn wait_until_reachable(&self, protocol: Protocol, deadline: Deadline) -> Result {
        let address = self.address;
        let reached = deadline.until(|| {
            if self.ended().is_some() {
                return Some(false);
            }
            let reachable = match protocol {
                Protocol::EchoUdp => proc::receives(address.port())
                    .unwrap_or_else(|| UdpSocket::bind(address).is_err()),
                _ => TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok(),
            };
            reachable.then_some(true)
        });
        if reached == Some(true) {
            return Ok(());
        }
        let failure = Failure::new(format!("waiting until the program serves {address}"))
            .expected(format!("a connection within {} s", START.as_secs()))
            .came("none")
            .because(NOT_STARTED);
        self.with_last_words(failure).stop()
    }

    /// Waits for a line on standard output; `None` when it does not come.
    #[must_use]
    pub fn wait_for_line(
        &self,
        deadline: Deadline,
        wanted: impl Fn(&str) -> bool,
    ) -> Option<String> {
        self.job.borrow().stdout.wait_for_line(deadline, wanted)
    }

    /// Waits until so many lines have come on standard output; says whether
    /// they came before the deadline, and before the output's end.
    #[must_use]
    pub fn wait_for_lines(&self, deadline: Deadline, number: u64) -> bool {
        self.job.borrow().stdout.wait_for_lines(deadline, number)
    }

    /// Waits for a line on standard error; `None` when it does not come.
    #[must_use]
    pub fn wait_for_complaint(
        &self,
        deadline: Deadline,
        wanted: impl Fn(&str) -> bool,
    ) -> Option<String> {
        self.job.borrow().stderr.wait_for_line(deadline, wanted)
    }

    /// The number of lines on standard output so far.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.job.borrow().stdout.lines()
    }

    /// At most `most` of the latest lines on standard output.
    #[must_use]
    pub fn latest_lines(&self, most: usize) -> Vec<String> {
        self.job.borrow().stdout.tail(most)
    }

    /// Leaves the standard output unread until the guard is dropped, as a
    /// terminal does after Ctrl-S.
    #[must_use]
    pub fn hold_output(&self) -> Held {
        self.job.borrow().stdout.hold()
    }

    /// The number of lines on standard error so far.
    #[must_use]
    pub fn complaints(&self) -> u64 {
        self.job.borrow().stderr.lines()
    }

    /// Closes the reading ends of both outputs: the terminal is gone.
    pub fn close_its_outputs(&self) {
        let mut job = self.job.borrow_mut();
        job.stdout.hang_up();
        job.stderr.hang_up();
    }

    /// How the process that was started ended, if it did.
    #[must_use]
    pub fn ended(&self) -> Option<String> {
        self.job.borrow_mut().ended().map(describe)
    }

    /// Waits for the process that was started to end, and says how.
    #[must_use]
    pub fn wait(&self, deadline: Deadline) -> Option<String> {
        self.job.borrow_mut().wait(deadline).map(describe)
    }

    /// Sends a signal to the process that was started, not to its children.
    ///
    /// # Errors
    /// A failure when it is already gone.
    pub fn signal(&self, signal: Signal) -> Result {
        kill(self.pid(), signal).during(&format!("sending {signal} to the server"))
    }

    /// Stops the process that was started, and waits until it stands still;
    /// SIGCONT lets it go on. Linux only.
    ///
    /// # Errors
    /// A failure when it does not stop: it may have ended.
    pub fn pause(&self, deadline: Deadline) -> Result {
        self.signal(Signal::SIGSTOP)?;
        let stopped = || (fate::change(self.pid())? == Change::Stopped).then_some(());
        match deadline.until(stopped) {
            Some(()) => Ok(()),
            None => Failure::new("stopping the program with SIGSTOP")
                .came("it does not stop")
                .stop(),
        }
    }

    /// All processes of the server: itself, its children, and those that it
    /// left behind. Linux only.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        proc::group(self.job.borrow().group())
    }

    /// The resident memory of all its processes, in bytes. Linux only.
    #[must_use]
    pub fn resident(&self) -> u64 {
        proc::resident(&self.processes())
    }

    /// The open descriptors of all its processes. Linux only.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        proc::descriptors(&self.processes())
    }

    /// Whether the descriptor `number` of its first process is open. Linux only.
    #[must_use]
    pub fn has_open(&self, number: u64) -> bool {
        // A link to what need not be a file.
        let link = format!("/proc/{}/fd/{number}", self.pid());
        std::fs::symlink_metadata(link).is_ok()
    }

    /// What all its threads have done so far. Linux only.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.processes())
    }

    /// Kills the server with all its children, and waits until they are gone
    /// and their sockets closed.
    pub fn kill(&self) {
        let group = {
            let mut job = self.job.borrow_mut();
            job.kill();
            job.group()
        };
        let gone = || proc::group(group).iter().all(|process| process.zombie);
        Deadline::after(REFUSAL).until(|| gone().then_some(()));
    }

    /// Makes sure that the server still runs and that none of its threads or
    /// children panicked, and ends it.
    ///
    /// # Errors
    /// A failure with the status or the message.
    pub fn finish(self) -> Result {
        if self.ended().is_some() {
            let failure = Failure::new("looking whether the server still runs at the end");
            return self
                .with_last_words(failure.expected("a running server"))
                .stop();
        }
        self.job.borrow_mut().kill();
        let panic = {
            let job = self.job.borrow();
            // A message may still be on its way through the pipe.
            job.stderr
                .wait_for_end(Deadline::after(Duration::from_secs(1)));
            job.stderr.panic()
        };
        match panic {
            None => Ok(()),
            Some(message) => {
                let mut failure = Failure::new("reading what the server said on standard error");
                failure.server = self.outputs();
                failure.expected("no panic").came(message).stop()
            }
        }
    }

    /// How the server ended, if it did, and the last lines that it said.
    #[must_use]
    pub fn last_words(&self) -> Vec<String> {
        let ended = self.ended().map(|status| format!("ended: {status}"));
        ended.into_iter().chain(self.outputs()).collect()
    }

    fn outputs(&self) -> Vec<String> {
        let job = self.job.borrow();
        let label = |name, lines: Vec<String>| {
            let lines = lines.into_iter();
            lines.map(move |line| format!("{name}: {line}"))
        };
        let stdout = label("stdout", job.stdout.tail(TAIL / 2));
        stdout
            .chain(label("stderr", job.stderr.tail(TAIL)))
            .collect()
    }

    fn with_last_words(&self, mut failure: Failure) -> Failure {
        failure.server.extend(self.last_words());
        failure
    }
}

/// Runs a program that is to end by itself, soon: one with a command line
/// that it must refuse, or `--help`. `user` runs it as somebody else.
///
/// # Errors
/// A failure when it does not end, or cannot be started.
pub fn run_to_end(
    executable: PathBuf,
    arguments: &[&str],
    user: Option<u32>,
    deadline: Deadline,
) -> Result<Ending> {
    let mut command = Command::new(executable);
    command.args(arguments);
    run_command_to_end(command, user, deadline)
}

/// [`run_to_end`] for any command.
///
/// # Errors
/// A failure when it does not end, or cannot be started.
pub fn run_command_to_end(
    command: Command,
    user: Option<u32>,
    deadline: Deadline,
) -> Result<Ending> {
    let words: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy())
        .collect();
    let what = format!("running the program with: {}", words.join(" "));
    let limits = Limits {
        user,
        ..Limits::default()
    };
    let mut job = Job::start(command, limits).during(&what)?;
    let Some(status) = job.wait(deadline.within(REFUSAL)) else {
        let mut failure = Failure::new(what)
            .expected(format!("an end within {} s", REFUSAL.as_secs()))
            .came("it goes on");
        let said = job
            .stdout
            .tail(TAIL)
            .into_iter()
            .chain(job.stderr.tail(TAIL));
        failure.server.extend(said);
        return failure.stop();
    };
    Ok(Ending {
        status,
        stdout: job.stdout.text(),
        stderr: job.stderr.text(),
    })
}
