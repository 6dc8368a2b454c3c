//! What a check is, what may come of it, and what it is given to work with.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use crate::budget;
use crate::catalog::{Clients, Protocol, Traits};
use crate::client::{Client, Pushed};
use crate::datagram::Sender;
use crate::http::{Answer, Answers, request};
use crate::program::{Kind, Program};
use crate::server::{Launch, Server};

/// A check as a whole is given this long, and twice the patience besides.
const LIMIT: Duration = Duration::from_secs(30);

/// The descriptors that a check without a crowd may need in the grader.
pub const ORDINARY: u64 = 40;

/// One sentence about the behaviour of a server, and how to find out.
pub struct Check {
    /// The sentence, unique among all checks: `a lone "0" is data`.
    pub name: &'static str,
    /// What usually is wrong in a program that fails.
    pub cause: &'static str,
    /// The section of the book that explains it, as a link below book/en.
    pub section: &'static str,
    /// How many descriptors the check needs in the grader itself.
    pub descriptors: u64,
    /// Whether a program of these traits promises this behaviour.
    pub applies: fn(&Traits) -> bool,
    /// Tries it on a fresh server.
    pub run: fn(&Case) -> Result,
}

/// What came of a check.
#[derive(Debug)]
pub enum Outcome {
    /// The program behaves as the check's name says.
    Passed,
    /// It does not.
    Failed(Failure),
    /// It could not be found out here, for this reason.
    Skipped(String),
}

/// What a check, or a step of one, returns.
pub type Result<T = ()> = std::result::Result<T, Stop>;

/// Why a check goes no further.
#[derive(Debug)]
pub enum Stop {
    /// The program misbehaved.
    Failed(Box<Failure>),
    /// The check does not fit this program or this machine.
    Skipped(String),
}

impl Stop {
    /// A reason to leave a check out.
    pub fn skipped(reason: impl Into<String>) -> Self {
        Stop::Skipped(reason.into())
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failed(Box::new(failure))
    }
}

/// What a program did wrong: enough to understand it without a debugger.
#[derive(Debug, Default)]
pub struct Failure {
    /// What was being done.
    pub what: String,
    /// What the grader sent.
    pub sent: Option<String>,
    /// What had to come of it.
    pub expected: Option<String>,
    /// What came instead.
    pub came: Option<String>,
    /// What the server itself said, and how it ended if it did.
    pub server: Vec<String>,
    /// The cause, where it is another one than the check's usual one.
    pub cause: Option<&'static str>,
}

impl Failure {
    /// A failure while doing `what`.
    pub fn new(what: impl Into<String>) -> Self {
        let what = what.into();
        Failure {
            what,
            ..Failure::default()
        }
    }

    /// Adds what was sent.
    #[must_use]
    pub fn sent(mut self, sent: impl Into<String>) -> Self {
        self.sent = Some(sent.into());
        self
    }

    /// Adds what had to come.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// Adds what came instead.
    #[must_use]
    pub fn came(mut self, came: impl Into<String>) -> Self {
        self.came = Some(came.into());
        self
    }

    /// Names a cause that has nothing to do with what the check is about.
    #[must_use]
    pub fn because(mut self, cause: &'static str) -> Self {
        self.cause = Some(cause);
        self
    }

    /// Ends the check with this failure.
    ///
    /// # Errors
    /// Always: that is its purpose.
    pub fn stop<T>(self) -> Result<T> {
        Err(self.into())
    }

    /// The parts that are known, with their labels, in reading order.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let optional = [
            ("sent", &self.sent),
            ("expected", &self.expected),
            ("came", &self.came),
        ];
        let known = optional
            .into_iter()
            .filter_map(|(label, text)| text.as_deref().map(|text| (label, text)));
        let server = self.server.iter().map(|line| ("server", line.as_str()));
        std::iter::once(("while", self.what.as_str()))
            .chain(known)
            .chain(server)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (label, text) in self.parts() {
            writeln!(f, "{label:<9} {text}")?;
        }
        Ok(())
    }
}

/// Names the step in which the system refused something to the grader.
pub trait During<T> {
    /// Turns an error into a failure while doing `what`.
    ///
    /// # Errors
    /// The failure, if there was an error.
    fn during(self, what: &str) -> Result<T>;
}

impl<T, E: fmt::Display> During<T> for std::result::Result<T, E> {
    fn during(self, what: &str) -> Result<T> {
        self.map_err(|error| Failure::new(what).came(error.to_string()).into())
    }
}

/// A moment after which nothing of a check goes on.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// The moment in `time` from now.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        Deadline(Instant::now() + time)
    }

    /// The earlier of this deadline and the moment in `time` from now.
    #[must_use]
    pub fn within(self, time: Duration) -> Self {
        Deadline(self.0.min(Instant::now() + time))
    }

    /// The time that is left: zero when the deadline has passed.
    #[must_use]
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Asks `look` again and again until it finds something; `None` when the
    /// deadline passes first. For what the system reports to no one:
    /// the state of another process.
    pub fn until<T>(self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        loop {
            let found = look();
            if found.is_some() || self.left().is_zero() {
                return found;
            }
            std::thread::sleep(Duration::from_millis(5).min(self.left()));
        }
    }
}

/// What a check works with: a program, and helpers that know its promises.
pub struct Case<'a> {
    /// The program under examination.
    pub program: &'a Program,
    /// How long an idle client, or one that does not read, waits.
    pub patience: Duration,
    /// When the check must have ended.
    pub deadline: Deadline,
}

impl Case<'_> {
    /// What the program promises.
    #[must_use]
    pub fn traits(&self) -> &Traits {
        &self.program.traits
    }

    /// How many clients of `wanted` the program serves at once.
    #[must_use]
    pub fn at_once(&self, wanted: usize) -> usize {
        match self.traits().clients {
            Clients::One => wanted.min(1),
            Clients::Limit(limit) => limit.min(wanted),
            Clients::Many(most) => most.min(wanted),
        }
    }

    /// The program, about to be started: on a free port, with the limits of
    /// the grader.
    #[must_use]
    pub fn launch(&self) -> Launch<'_> {
        let launch = Launch::new(self.program, self.deadline);
        match self.program.kind {
            // A crowd is silent for a while; its time is not up before a check's.
            Kind::Ours(_) if self.traits().protocol == Protocol::Http => {
                launch.arguments(&["--timeout", "600"])
            }
            _ => launch,
        }
    }

    /// Starts the program, runs `body` with it, and makes sure at the end
    /// that it lives, that nothing panicked, and that all of it is gone.
    ///
    /// # Errors
    /// What `body` found, with the server's own last words.
    pub fn serve(&self, body: impl FnOnce(&Server) -> Result) -> Result {
        self.serve_with(self.launch(), body)
    }

    /// [`serve`](Self::serve), with a launch of the check's own.
    ///
    /// # Errors
    /// What `body` found, with the server's own last words.
    pub fn serve_with(&self, launch: Launch, body: impl FnOnce(&Server) -> Result) -> Result {
        let server = launch.start()?;
        explained(body(&server), &server)?;
        server.finish()
    }

    /// Starts the program and runs `body` with it, which sees it to its end.
    ///
    /// # Errors
    /// What `body` found, with the program's own last words.
    pub fn run_with(&self, launch: Launch, body: impl FnOnce(&Server) -> Result) -> Result {
        let server = launch.start()?;
        explained(body(&server), &server)
    }

    /// Connects a client and reads the greeting if the program promises one:
    /// after that the client is being served.
    ///
    /// # Errors
    /// A failure when the server does not take the client, or greets wrongly.
    pub fn client(&self, server: &Server) -> Result<Client> {
        self.greeted(self.stranger(server)?)
    }

    /// [`client`](Self::client) behind small segments and small buffers, as
    /// over an Ethernet: some 300 KiB fill it, not megabytes.
    ///
    /// # Errors
    /// As for [`client`](Self::client).
    pub fn narrow_client(&self, server: &Server) -> Result<Client> {
        self.greeted(Client::connect_narrow(server.address(), self.deadline)?)
    }

    /// Connects a client and leaves it at that: the kernel may have done so
    /// on its own, and the server not know of it yet.
    ///
    /// # Errors
    /// A failure when the connection is not made.
    pub fn stranger(&self, server: &Server) -> Result<Client> {
        Client::connect(server.address(), self.deadline)
    }

    fn greeted(&self, mut client: Client) -> Result<Client> {
        if self.traits().greeting {
            client.read_greeting()?;
        }
        Ok(client)
    }

    /// A new client comes, says something, gets its answer and leaves.
    ///
    /// # Errors
    /// A failure when it is not served.
    pub fn visit(&self, server: &Server) -> Result {
        match self.traits().protocol {
            Protocol::EchoUdp => {
                Sender::to(server.address(), self.deadline)?.exchange(b"a visitor\n")
            }
            Protocol::Http | Protocol::Page => {
                let mut client = self.client(server)?;
                let mut answers = Answers::of(&mut client);
                let page = request("GET", "/");
                let answer = answers.ask(&page)?;
                answer.require(&page, &[200])?;
                if answer.closes() {
                    // In order or not is another question than whether it serves.
                    return Ok(());
                }
                answers.leave()
            }
            _ => {
                let mut client = self.client(server)?;
                client.exchange(b"a visitor\n")?;
                client.finish_sending()?;
                client.expect_end()
            }
        }
    }

    /// A client says something that has an answer, in the server's protocol:
    /// `words` themselves where they come back.
    ///
    /// # Errors
    /// A failure when the connection does not take it.
    pub fn ask(&self, client: &mut Client, words: &str) -> Result {
        match self.traits().protocol {
            Protocol::Http | Protocol::Page => client.send(&request("GET", "/")),
            _ => client.send(words.as_bytes()),
        }
    }

    /// The client gets the answer to [`ask`](Self::ask), and stays.
    ///
    /// # Errors
    /// A failure when another answer comes, or none; a reason to skip when a
    /// server that is not ours lets nobody stay.
    pub fn hear(&self, client: &mut Client, words: &str) -> Result {
        match self.traits().protocol {
            Protocol::Http | Protocol::Page => {
                let page = request("GET", "/");
                let mut answers = Answers::of(client);
                let answer = answers.next(&page)?;
                answer.require(&page, &[200])?;
                answers.no_more()?;
                self.stays(&answer)
            }
            _ => client.expect(words.as_bytes()),
        }
    }

    /// [`ask`](Self::ask) and [`hear`](Self::hear): then the client is being
    /// served.
    ///
    /// # Errors
    /// As for these two.
    pub fn talk(&self, client: &mut Client, words: &str) -> Result {
        self.ask(client, words)?;
        self.hear(client, words)
    }

    /// Makes sure that an HTTP server keeps the connection after an answer.
    ///
    /// # Errors
    /// A failure when it closes, and a reason to skip when it may do so: it
    /// is not ours, or has never promised more.
    pub fn stays(&self, answer: &Answer) -> Result {
        if !answer.closes() {
            return Ok(());
        }
        if self.may_close() {
            return Err(Stop::skipped(
                "the server closes the connection after each answer, and says so",
            ));
        }
        Failure::new("reading whether the connection stays open")
            .expected("no \"Connection: close\": the client did not ask for it")
            .came(answer.summary())
            .stop()
    }

    /// Whether an HTTP server may close the connection after each answer.
    fn may_close(&self) -> bool {
        self.traits().protocol == Protocol::Page || self.conventions().is_err()
    }

    /// A client sends without ever reading the answers, until the connection
    /// takes nothing for `hold` or `most` bytes went out.
    ///
    /// # Errors
    /// A failure when the connection breaks.
    pub fn flood(&self, client: &mut Client, most: u64, hold: Duration) -> Result<Pushed> {
        match self.traits().protocol {
            Protocol::Http | Protocol::Page => {
                if self.may_close() {
                    self.talk(client, "")?;
                }
                // An answer is some four times as long as its request.
                client.push_repeatedly(&request("GET", "/"), most / 4, hold)
            }
            _ => client.push(most, hold),
        }
    }

    /// The executable of a program that follows the book's conventions for
    /// command lines and first lines.
    ///
    /// # Errors
    /// A reason to skip, for any other program.
    pub fn conventions(&self) -> Result<&Path> {
        match &self.program.kind {
            Kind::Ours(executable) => Ok(executable),
            Kind::Foreign(_) => Err(Stop::skipped(
                "a matter of the book's own command line, unknown of this program",
            )),
        }
    }
}

/// Adds the server's own last words to what a check found.
fn explained(found: Result, server: &Server) -> Result {
    found.map_err(|stop| match stop {
        Stop::Failed(mut failure) => {
            failure.server.extend(server.last_words());
            Stop::Failed(failure)
        }
        skipped => skipped,
    })
}

/// How a program that ran to its end did so.
#[derive(Debug)]
pub struct Ending {
    /// Its status.
    pub status: ExitStatus,
    /// What it said on its standard output.
    pub stdout: String,
    /// What it said on its standard error.
    pub stderr: String,
}

impl Check {
    /// Runs the check against a program. Whatever happens, even a panic in
    /// the check, everything that was started has ended on return.
    #[must_use]
    pub fn examine(&self, program: &Program, patience: Duration) -> Outcome {
        // Held before the clock starts: a crowd may wait for another one.
        let held = budget::hold(self.descriptors);
        let tried = held.and_then(|_held| {
            let case = Case {
                program,
                patience,
                deadline: Deadline::after(LIMIT + 2 * patience),
            };
            catch_unwind(AssertUnwindSafe(|| (self.run)(&case))).unwrap_or_else(|panic| {
                let said = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("no message");
                Failure::new("running the check itself, which panicked")
                    .came(said)
                    .stop()
            })
        });
        match tried {
            Ok(()) => Outcome::Passed,
            Err(Stop::Failed(failure)) => Outcome::Failed(*failure),
            Err(Stop::Skipped(reason)) => Outcome::Skipped(reason),
        }
    }

    /// A failure of this check as a student reads it: what happened, the
    /// usual cause, and where the book explains it.
    #[must_use]
    pub fn explain(&self, failure: &Failure) -> String {
        match failure.cause {
            Some(cause) => format!("{failure}cause     {cause}\n"),
            None => {
                let (cause, section) = (self.cause, self.section);
                format!("{failure}cause     {cause}\nread      book/en/{section}\n")
            }
        }
    }
}
