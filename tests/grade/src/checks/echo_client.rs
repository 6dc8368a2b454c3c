//! A client for the terminal: what is typed goes out, what comes is shown,
//! and neither waits for the other. The server is the grader itself.

use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};

use crate::bytes::{self, CHUNK, pattern, show, size};
use crate::catalog::{Protocol, Traits};
use crate::check::{Case, Check, Deadline, During, Failure, ORDINARY, Result, Stop};
use crate::client::{Client, STALL};
use crate::job::{Job, Limits, describe};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "a line goes out when it is typed",
        cause: "the input is read to its end, or the output kept in a buffer, before \
                anything is sent",
        section: "ch01-echo/client.md#a-client",
        descriptors: ORDINARY,
        applies: is_client,
        run: lines_go_out,
    },
    Check {
        name: "an answer without a newline is shown at once",
        cause: "what comes is kept in a buffer until its line, or the buffer, is complete",
        section: "ch01-echo/client.md#a-client",
        descriptors: ORDINARY,
        applies: is_client,
        run: shown_at_once,
    },
    Check {
        name: "the end of the input half-closes, and the rest is shown",
        cause: "the client ends with its input, and what the server still has to say is lost",
        section: "ch01-echo/endings.md#half-close",
        descriptors: ORDINARY,
        applies: is_client,
        run: rest_is_shown,
    },
    Check {
        name: "binary bytes pass unchanged in both directions",
        cause: "bytes pass through a text type, or a NUL or line end is special",
        section: "ch01-echo/bytes.md#bytes-not-messages",
        descriptors: ORDINARY,
        applies: is_client,
        run: binary,
    },
    Check {
        name: "16 MiB through a slow echo come back whole",
        cause: "the client writes all before it reads, the server writes before it reads \
                more, and both wait for ever",
        section: "ch01-echo/bytes.md#lockstep",
        descriptors: ORDINARY,
        applies: is_client,
        run: slow_echo,
    },
    Check {
        name: "a server that closes first ends the client",
        cause: "the client waits for its input, which stays open, and not for the connection",
        section: "ch01-echo/client.md#a-client",
        descriptors: ORDINARY,
        applies: is_client,
        run: server_closes,
    },
    Check {
        name: "a reset is an error that names the address",
        cause: "an error of read is taken for the end of the stream",
        section: "ch01-echo/endings.md#reset",
        descriptors: ORDINARY,
        applies: is_client,
        run: server_resets,
    },
    Check {
        name: "a refused connection is an error that names the address",
        cause: "the result of connect is used before it is looked at",
        section: "ch01-echo/client.md#a-client",
        descriptors: ORDINARY,
        applies: is_client,
        run: nobody_listens,
    },
    Check {
        name: "the client ends when the reader of its output goes away",
        cause: "the error of writing to the output (EPIPE) is ignored, or is a panic",
        section: "ch05-signals/sigpipe.md#sigpipe",
        descriptors: ORDINARY,
        applies: is_client,
        run: nobody_reads,
    },
];

fn is_client(traits: &Traits) -> bool {
    traits.protocol == Protocol::Client
}

/// A client under examination, in the middle: the grader types, is the server,
/// and reads what is shown.
struct Session {
    job: Job,
    /// What the client reads; `None` once its end was typed.
    typed: Option<PipeWriter>,
    /// What it shows; `None` once nobody looks any more.
    shown: Option<PipeReader>,
    address: SocketAddr,
    deadline: Deadline,
}

impl Session {
    /// Starts the client and tells it to connect to `address`.
    fn start(case: &Case, address: SocketAddr) -> Result<Session> {
        let command = case.program.command(address, &[]);
        let (job, typed, shown) = Job::start_piped(command, Limits::default())
            .during(&format!("starting {}", case.program.name))?;
        Ok(Session {
            job,
            typed: Some(typed),
            shown: Some(shown),
            address,
            deadline: case.deadline,
        })
    }

    /// Types a few bytes, fewer than a pipe holds.
    fn types(&mut self, bytes: &[u8]) -> Result {
        match &mut self.typed {
            Some(typed) => typed
                .write_all(bytes)
                .during("writing to the client's input"),
            None => Failure::new("writing to an input that was closed").stop(),
        }
    }

    /// Types the end of the input, as Ctrl-D does.
    fn types_end(&mut self) {
        self.typed = None;
    }

    /// Reads what the client shows: exactly this, and before any end.
    fn shows(&mut self, expected: &[u8]) -> Result {
        let mut got = Vec::new();
        while got.len() < expected.len() {
            let most = (expected.len() - got.len()).min(CHUNK);
            let start = got.len();
            got.resize(start + most, 0);
            let read = self.look(&mut got[start..])?;
            got.truncate(start + read.unwrap_or_default());
            let wrong = bytes::first_difference(&got, &expected[..got.len()]);
            let failure = Failure::new("reading what the client shows");
            match (wrong, read) {
                (None, Some(1..)) => {}
                (Some(at), _) => {
                    return failure
                        .expected(format!("from byte {at} on {}", bytes::around(expected, at)))
                        .came(bytes::around(&got, at))
                        .stop();
                }
                (None, read) => {
                    let then = read.map_or("nothing for 5 s", |_| "the end of its output");
                    let got = size(got.len() as u64);
                    return failure
                        .expected(format!(
                            "{}: {}",
                            size(expected.len() as u64),
                            show(expected)
                        ))
                        .came(format!("{got}, then {then}"))
                        .stop();
                }
            }
        }
        Ok(())
    }

    /// Reads something that the client shows, 0 bytes at its end; `None` when
    /// nothing comes.
    fn look(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        let Some(shown) = &mut self.shown else {
            return Failure::new("reading an output that was closed").stop();
        };
        let time = self.deadline.within(STALL).left();
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO);
        let mut waiting = [PollFd::new(shown.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut waiting, timeout) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error).during("waiting for the client's output"),
            }
        }
        let read = shown.read(buffer);
        read.map(Some).during("reading the client's output")
    }

    /// The client shows nothing more, and ends with one of these statuses.
    fn ends(mut self, statuses: &[i32]) -> Result<String> {
        let mut buffer = [0; 1000];
        if self.shown.is_some() {
            let came = match self.look(&mut buffer)? {
                Some(0) => None,
                Some(read) => Some(show(&buffer[..read])),
                None => Some("it goes on".to_string()),
            };
            if let Some(came) = came {
                return self.fails(
                    "waiting for the client to end",
                    "its end, and no more output",
                    came,
                );
            }
        }
        let Some(status) = self.job.wait(self.deadline.within(STALL)) else {
            return self.fails("waiting for the client to end", "its end", "it goes on");
        };
        if let Some(panic) = self.job.stderr.panic() {
            return self.fails("reading the client's standard error", "no panic", panic);
        }
        if status.code().is_some_and(|code| statuses.contains(&code)) {
            return Ok(self.job.stderr.text());
        }
        let statuses: Vec<_> = statuses.iter().map(i32::to_string).collect();
        let expected = format!("exit status {}", statuses.join(" or "));
        self.fails("looking how the client ended", &expected, describe(status))
    }

    fn fails<T>(&self, what: &str, expected: &str, came: impl Into<String>) -> Result<T> {
        let mut failure = Failure::new(what).expected(expected).came(came);
        let said = self.job.stderr.tail(6);
        failure.server.extend(
            said.into_iter()
                .map(|line| format!("client: stderr: {line}")),
        );
        failure.stop()
    }

    /// The client ends with an error that names the address and says `words`.
    fn ends_with_error(self, case: &Case, words: &str) -> Result {
        let address = self.address.to_string();
        // Another program may say it as it likes, as long as its status tells.
        let ours = case.conventions().is_ok();
        let said = self.ends(if ours { &[1] } else { FAILURES })?;
        if !ours || (said.contains(&address) && said.contains(words)) {
            return Ok(());
        }
        Failure::new("reading the client's standard error")
            .expected(format!("{address}, and that the connection was {words}"))
            .came(show(said.as_bytes()))
            .stop()
    }
}

/// Any status but success.
const FAILURES: &[i32] = &[1, 2, 3, 4, 5, 255];

/// A server of one client.
struct Listener(TcpListener);

impl Listener {
    fn new() -> Result<(Listener, SocketAddr)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).during("listening")?;
        let address = listener
            .local_addr()
            .during("asking for the port's number")?;
        listener
            .set_nonblocking(true)
            .during("not to wait in accept")?;
        Ok((Listener(listener), address))
    }

    fn accept(&self, deadline: Deadline) -> Result<TcpStream> {
        let accepted = deadline.within(STALL).until(|| match self.0.accept() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            accepted => Some(accepted),
        });
        match accepted {
            Some(accepted) => {
                let (stream, _) = accepted.during("accepting the client")?;
                stream
                    .set_nonblocking(false)
                    .during("waiting for the client")?;
                Ok(stream)
            }
            None => Failure::new("waiting for the client to connect")
                .expected("a connection")
                .came(format!("none for {} s", STALL.as_secs()))
                .stop(),
        }
    }
}

/// Runs the client against a server that is `body`.
fn serve(case: &Case, body: impl FnOnce(Session, Client) -> Result) -> Result {
    let (listener, address) = Listener::new()?;
    let session = Session::start(case, address)?;
    let stream = listener.accept(case.deadline)?;
    body(session, Client::of(stream, case.deadline)?)
}

fn lines_go_out(case: &Case) -> Result {
    serve(case, |mut session, mut server| {
        for line in ["hello\n", "0\n", "\n", "  what is typed, as it is\t\n"] {
            session.types(line.as_bytes())?;
            server.expect(line.as_bytes())?;
        }
        server.expect_silence(Duration::from_millis(100))?;
        session.types_end();
        server.expect_end()?;
        drop(server);
        session.ends(&[0]).map(drop)
    })
}

fn shown_at_once(case: &Case) -> Result {
    serve(case, |mut session, mut server| {
        for part in ["login: ", "0", "a line\nand a part"] {
            server.send(part.as_bytes())?;
            session.shows(part.as_bytes())?;
        }
        drop(server);
        session.ends(&[0]).map(drop)
    })
}

fn rest_is_shown(case: &Case) -> Result {
    const REST: u64 = 4 << 20;
    serve(case, |mut session, mut server| {
        session.types(b"all that I want to say\n")?;
        session.types_end();
        server.expect(b"all that I want to say\n")?;
        server.expect_end()?;
        std::thread::scope(|scope| {
            let answering = scope.spawn(move || server.send_pattern(REST));
            let shown = shows_pattern(&mut session, REST);
            // The server may wait for a client that shows nothing: it ends.
            if shown.is_err() {
                session.job.kill();
            }
            let answered = answering.join();
            shown?;
            answered.unwrap_or_else(|_| Failure::new("answering, in a thread that panicked").stop())
        })?;
        session.ends(&[0]).map(drop)
    })
}

fn shows_pattern(session: &mut Session, length: u64) -> Result {
    let mut offset = 0;
    while offset < length {
        let part = pattern(offset, (length - offset) as usize);
        session.shows(part)?;
        offset += part.len() as u64;
    }
    Ok(())
}

fn binary(case: &Case) -> Result {
    serve(case, |mut session, mut server| {
        let values: Vec<u8> = (0..=255).chain(*b"\r\n\n\r\xff\xfe\0\n").collect();
        session.types(&values)?;
        // Whoever sends lines sends the last one, which has no end, at the end.
        session.types_end();
        server.expect(&values)?;
        server.expect_end()?;
        server.send(&values)?;
        session.shows(&values)?;
        drop(server);
        session.ends(&[0]).map(drop)
    })
}

fn slow_echo(case: &Case) -> Result {
    const LENGTH: u64 = 16 << 20;
    let (listener, address) = Listener::new()?;
    let mut session = Session::start(case, address)?;
    let stream = listener.accept(case.deadline)?;
    // It takes less than a second; whoever waits for each line takes for ever.
    let deadline = case.deadline.within(3 * STALL);
    session.deadline = deadline;
    let typed = session.typed.take();
    std::thread::scope(|scope| {
        let typing = scope.spawn(move || types_pattern(typed, LENGTH));
        let echoing = scope.spawn(move || echo_slowly(&stream, deadline));
        let shown = shows_pattern(&mut session, LENGTH);
        // Whoever still waits for the client has its end now.
        if shown.is_err() {
            session.job.kill();
        }
        let (typed, echoed) = (typing.join(), echoing.join());
        shown?;
        for result in [typed, echoed] {
            result.unwrap_or_else(|_| Failure::new("helping, in a thread that panicked").stop())?;
        }
        Ok::<(), Stop>(())
    })?;
    session.ends(&[0]).map(drop)
}

fn types_pattern(typed: Option<PipeWriter>, length: u64) -> Result {
    let mut offset = 0;
    if let Some(mut typed) = typed {
        while offset < length {
            let part = pattern(offset, (length - offset) as usize);
            typed
                .write_all(part)
                .during("writing to the client's input")?;
            offset += part.len() as u64;
        }
    }
    Ok(())
}

/// An echo that reads no more before what it read has gone out, with small
/// buffers and a pause: whoever only writes to it is soon held.
fn echo_slowly(mut stream: &TcpStream, deadline: Deadline) -> Result {
    const PAUSE: Duration = Duration::from_micros(200);
    let what = "echoing slowly";
    let mut buffer = vec![0; 32 << 10];
    loop {
        let time = deadline.within(STALL).left().max(Duration::from_millis(1));
        stream.set_read_timeout(Some(time)).during(what)?;
        stream.set_write_timeout(Some(time)).during(what)?;
        match stream.read(&mut buffer) {
            Ok(0) => return stream.shutdown(Shutdown::Write).during(what),
            Ok(read) => stream.write_all(&buffer[..read]).during(what)?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).during(what),
        }
        std::thread::sleep(PAUSE);
    }
}

fn server_closes(case: &Case) -> Result {
    serve(case, |mut session, mut server| {
        server.send(b"goodbye")?;
        drop(server);
        session.shows(b"goodbye")?;
        // Its input is still open.
        session.ends(&[0, 1]).map(drop)
    })
}

fn server_resets(case: &Case) -> Result {
    serve(case, |mut session, mut server| {
        server.send(b"I am about to")?;
        session.shows(b"I am about to")?;
        server.reset();
        session.ends_with_error(case, "reset")
    })
}

fn nobody_listens(case: &Case) -> Result {
    // A port that is taken, so that nobody else listens there either.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).during("making a socket")?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).during("taking a port")?;
    let address = socket.local_addr().during("asking for its number")?;
    let Some(address) = address.as_socket() else {
        return Err(Stop::skipped("the port has no address of IPv4 or IPv6"));
    };
    Session::start(case, address)?.ends_with_error(case, "refused")
}

fn nobody_reads(case: &Case) -> Result {
    serve(case, |mut session, mut server| {
        session.shown = None;
        // The first write after it fails, and so does every other one.
        let _ = server.push(1 << 20, Duration::from_millis(500));
        let status = session.job.wait(case.deadline.within(STALL));
        if status.is_none() {
            return session.fails(
                "waiting for a client whose output nobody reads",
                "its end",
                "it goes on",
            );
        }
        match session.job.stderr.panic() {
            Some(panic) => session.fails("reading the client's standard error", "no panic", panic),
            None => Ok(()),
        }
    })
}
