//! A TCP client with a deadline on everything that it does.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use crate::bytes::{self, CHUNK, pattern, show, size};
use crate::check::{Deadline, During, Failure, Result};

/// Without a byte for this long, a transfer has stalled.
pub const STALL: Duration = Duration::from_secs(5);

/// A connection is made, or it is not, within this time.
const CONNECT: Duration = Duration::from_secs(5);

/// The longest greeting that is read.
const GREETING: usize = 100;

/// The segment of an Ethernet: 1,500 bytes less the headers.
#[cfg(target_os = "linux")]
const ETHERNET: u32 = 1448;

/// A connected client.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    deadline: Deadline,
    /// The process that the greeting named, once it has been read.
    pub process: Option<i32>,
}

/// What came instead of bytes.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Nothing, for this long.
    Silence(Duration),
    /// The end of the stream.
    End,
    /// An error, mostly a reset.
    Error(io::Error),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Silence(time) => write!(f, "nothing for {:.1} s", time.as_secs_f32()),
            Trouble::End => f.write_str("the end of the stream"),
            Trouble::Error(error) if error.kind() == ErrorKind::ConnectionReset => {
                f.write_str("a reset of the connection")
            }
            Trouble::Error(error) => write!(f, "an error: {error}"),
        }
    }
}

/// Bytes that go out and come back at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// How many bytes of the [`pattern`] go out.
    pub bytes: u64,
    /// Whether the client half-closes after them, and the end must follow.
    pub half_close: bool,
    /// After how many bytes the client stops reading, and for how long.
    pub pause: Option<(u64, Duration)>,
}

/// How far [`Client::push`] came.
#[derive(Clone, Copy, Debug)]
pub struct Pushed {
    /// The bytes of the [`pattern`] that the connection took.
    pub bytes: u64,
    /// Whether it then took no more.
    pub held: bool,
}

impl Client {
    /// Connects to `address`. Nothing that the client does goes on after
    /// `deadline`.
    ///
    /// # Errors
    /// A failure when the connection is refused, or not made in time.
    pub fn connect(address: SocketAddr, deadline: Deadline) -> Result<Client> {
        let time = deadline
            .within(CONNECT)
            .left()
            .max(Duration::from_millis(1));
        let stream = TcpStream::connect_timeout(&address, time);
        Client::connected(stream, address, deadline)
    }

    /// Connects with the segments of an Ethernet and a small receive buffer.
    ///
    /// On loopback a segment may have 64 KiB, and the kernel sizes the
    /// sender's buffer by it: some 2.5 MiB go out before a server notices that
    /// nobody reads. Behind an Ethernet it is some 300 KiB.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    pub fn connect_narrow(address: SocketAddr, deadline: Deadline) -> Result<Client> {
        let connect = || -> io::Result<TcpStream> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.set_recv_buffer_size(16 * 1024)?;
            #[cfg(target_os = "linux")]
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::TcpMaxSeg, &ETHERNET)?;
            socket.connect_timeout(&address.into(), deadline.within(CONNECT).left())?;
            Ok(socket.into())
        };
        Client::connected(connect(), address, deadline)
    }

    /// The grader's side of a connection that a client under examination made.
    ///
    /// # Errors
    /// A failure when the system refuses to set it up.
    pub fn of(stream: TcpStream, deadline: Deadline) -> Result<Client> {
        let address = stream
            .peer_addr()
            .during("asking for the client's address")?;
        Client::connected(Ok(stream), address, deadline)
    }

    fn connected(
        stream: io::Result<TcpStream>,
        address: SocketAddr,
        deadline: Deadline,
    ) -> Result<Client> {
        match stream {
            Ok(stream) => {
                // Small messages go out as they are written.
                stream.set_nodelay(true).during("setting TCP_NODELAY")?;
                Ok(Client {
                    stream,
                    deadline,
                    process: None,
                })
            }
            Err(error) => Failure::new(format!("connecting to {address}"))
                .expected("a connection")
                .came(error.to_string())
                .stop(),
        }
    }

    /// Reads the greeting of a fork server, and remembers its process.
    ///
    /// # Errors
    /// A failure when something else comes.
    pub fn read_greeting(&mut self) -> Result {
        let mut line = Vec::new();
        let mut byte = [0];
        let trouble = loop {
            match self.read(&mut byte, STALL) {
                Ok(_) if byte[0] == b'\n' => break None,
                Ok(_) if line.len() < GREETING => line.push(byte[0]),
                Ok(_) => break None,
                Err(trouble) => break Some(trouble),
            }
        };
        let text = String::from_utf8_lossy(&line);
        let process = text.strip_prefix("You are connected to process ");
        self.process = process.and_then(|process| process.parse().ok());
        if trouble.is_none() && self.process.is_some() {
            return Ok(());
        }
        let then = trouble.map_or(String::new(), |trouble| format!(", then {trouble}"));
        Failure::new("reading the greeting")
            .expected("\"You are connected to process PID\\n\"")
            .came(format!("{}{then}", show(&line)))
            .stop()
    }

    /// Sends bytes, all of them.
    ///
    /// # Errors
    /// A failure when the connection breaks, or takes nothing for [`STALL`].
    pub fn send(&mut self, message: &[u8]) -> Result {
        let mut sent = 0;
        while sent < message.len() {
            match self.write(&message[sent..], STALL) {
                Ok(written) => sent += written,
                Err(trouble) => {
                    return Failure::new(format!("sending {}", show(message)))
                        .expected(format!("{} to be taken", size(message.len() as u64)))
                        .came(format!("{trouble}, after {}", size(sent as u64)))
                        .stop();
                }
            }
        }
        Ok(())
    }

    /// Reads exactly `expected`, which is the answer to it being sent.
    ///
    /// # Errors
    /// A failure at the first byte that differs, or when bytes are missing.
    pub fn expect(&mut self, expected: &[u8]) -> Result {
        let mut got = Vec::with_capacity(expected.len());
        let mut buffer = vec![0; expected.len().min(CHUNK)];
        while got.len() < expected.len() {
            let missing = (expected.len() - got.len()).min(buffer.len());
            let read = self.read(&mut buffer[..missing], STALL);
            if let Ok(read) = read {
                got.extend_from_slice(&buffer[..read]);
            }
            let wrong = bytes::first_difference(&got, &expected[..got.len()]);
            if wrong.is_none() && read.is_ok() {
                continue;
            }
            let failure = Failure::new("reading what comes back").sent(show(expected));
            return match (wrong, read) {
                (Some(at), _) => failure
                    .expected(format!("from byte {at} on {}", bytes::around(expected, at)))
                    .came(bytes::around(&got, at)),
                (None, Err(trouble)) => failure
                    .expected(format!("the same {} back", size(expected.len() as u64)))
                    .came(so_far(got.len() as u64, &trouble)),
                (None, Ok(_)) => failure,
            }
            .stop();
        }
        Ok(())
    }

    /// Sends a message and reads it back.
    ///
    /// # Errors
    /// As for [`send`](Self::send) and [`expect`](Self::expect).
    pub fn exchange(&mut self, message: &[u8]) -> Result {
        self.send(message)?;
        self.expect(message)
    }

    /// Half-closes: the server reads the end of the stream, the client can
    /// still read.
    ///
    /// # Errors
    /// A failure when the connection is already gone.
    pub fn finish_sending(&mut self) -> Result {
        let closed = self.stream.shutdown(Shutdown::Write);
        closed.during("half-closing the connection")
    }

    /// Reads the end of the stream, and nothing before it.
    ///
    /// # Errors
    /// A failure when bytes, a reset or nothing comes.
    pub fn expect_end(&mut self) -> Result {
        let mut buffer = [0; 64];
        let came = match self.read(&mut buffer, STALL) {
            Err(Trouble::End) => return Ok(()),
            Ok(read) => format!("more bytes: {}", show(&buffer[..read])),
            Err(trouble) => trouble.to_string(),
        };
        Failure::new("waiting for the server to close the connection")
            .expected("the end of the stream")
            .came(came)
            .stop()
    }

    /// Reads the end of the stream, and no reset after it: the server has read
    /// all that this client sent before.
    ///
    /// # Errors
    /// A failure when bytes, a reset or nothing comes.
    pub fn expect_orderly_end(&mut self) -> Result {
        self.expect_end()?;
        // The end and a reset are two packets, with a moment between them.
        std::thread::sleep(Duration::from_millis(20));
        match self.stream.take_error() {
            Ok(None) => Ok(()),
            Ok(Some(error)) | Err(error) => {
                Failure::new("waiting for the server to close the connection")
                    .expected("the end of the stream, and nothing after it")
                    .came(format!("the end of the stream, then a reset ({error})"))
                    .stop()
            }
        }
    }

    /// Stays connected for `time`, in which nothing must come.
    ///
    /// # Errors
    /// A failure when the server closes, or says something.
    pub fn expect_silence(&mut self, time: Duration) -> Result {
        let started = std::time::Instant::now();
        let mut buffer = [0; 64];
        let came = match self.read(&mut buffer, time) {
            Err(Trouble::Silence(_)) => return Ok(()),
            Ok(read) => show(&buffer[..read]),
            Err(trouble) => trouble.to_string(),
        };
        let after = started.elapsed().as_secs_f32();
        Failure::new("staying connected and silent")
            .expected(format!("nothing for {:.1} s", time.as_secs_f32()))
            .came(format!("{came}, after {after:.1} s"))
            .stop()
    }

    /// Whether the server has closed this connection, by now or within
    /// `time`; whatever it said before is dropped.
    #[must_use]
    pub fn is_closed_within(&mut self, time: Duration) -> bool {
        let deadline = self.deadline.within(time);
        let mut buffer = [0; 4096];
        loop {
            match self.read(&mut buffer, deadline.left()) {
                Ok(_) => {}
                Err(Trouble::Silence(_)) => return false,
                Err(Trouble::End | Trouble::Error(_)) => return true,
            }
        }
    }

    /// Closes with a reset instead of an orderly end: SO_LINGER with no time.
    pub fn reset(self) {
        // It fails on no connected socket; at worst the close is orderly.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Sends the [`pattern`] and never reads, until the connection takes
    /// nothing for `hold` or `most` bytes went out.
    ///
    /// # Errors
    /// A failure when the connection breaks.
    pub fn push(&mut self, most: u64, hold: Duration) -> Result<Pushed> {
        self.push_parts(most, hold, |bytes| pattern(bytes, CHUNK))
    }

    /// `part` has the bytes to send when so many have been sent.
    fn push_parts<'a>(
        &mut self,
        most: u64,
        hold: Duration,
        part: impl Fn(u64) -> &'a [u8],
    ) -> Result<Pushed> {
        let mut bytes = 0;
        while bytes < most {
            let part = part(bytes);
            let length = (most - bytes).min(part.len() as u64) as usize;
            match self.write(&part[..length], hold) {
                Ok(written) => bytes += written as u64,
                Err(Trouble::Silence(_)) => return Ok(Pushed { bytes, held: true }),
                Err(trouble) => {
                    return Failure::new("sending without reading")
                        .sent(size(bytes))
                        .expected("a connection that stays open")
                        .came(trouble.to_string())
                        .stop();
                }
            }
        }
        Ok(Pushed { bytes, held: false })
    }

    /// [`push`](Self::push) for one message again and again.
    ///
    /// # Errors
    /// A failure when the connection breaks.
    pub fn push_repeatedly(&mut self, message: &[u8], most: u64, hold: Duration) -> Result<Pushed> {
        let block = message.repeat(CHUNK / message.len() + 1);
        let length = message.len() as u64;
        self.push_parts(most, hold, |bytes| &block[(bytes % length) as usize..])
    }

    /// Reads `length` bytes, whatever they are.
    ///
    /// # Errors
    /// A failure when fewer come.
    pub fn skip(&mut self, length: u64) -> Result {
        let mut buffer = [0; 4096];
        let mut skipped = 0;
        while skipped < length {
            let most = (length - skipped).min(buffer.len() as u64) as usize;
            match self.read(&mut buffer[..most], STALL) {
                Ok(read) => skipped += read as u64,
                Err(trouble) => {
                    return Failure::new("reading what comes back")
                        .expected(size(length))
                        .came(so_far(skipped, &trouble))
                        .stop();
                }
            }
        }
        Ok(())
    }

    /// Reads `length` bytes of the [`pattern`], from its beginning.
    ///
    /// # Errors
    /// A failure at the first byte that differs, or when bytes are missing.
    pub fn expect_pattern(&mut self, length: u64) -> Result {
        self.read_pattern(0, length, length)
    }

    /// Reads the part of the pattern between two offsets; `sent` is how much
    /// of it went out in all.
    fn read_pattern(&self, from: u64, to: u64, sent: u64) -> Result {
        let mut buffer = vec![0; CHUNK];
        let mut offset = from;
        while offset < to {
            let wanted = (to - offset).min(CHUNK as u64) as usize;
            let failure = || {
                Failure::new("reading what comes back").sent(format!("{} of a pattern", size(sent)))
            };
            match self.read(&mut buffer[..wanted], STALL) {
                Ok(read) => {
                    let expected = pattern(offset, read);
                    if let Some(at) = bytes::first_difference(&buffer[..read], expected) {
                        let place = bytes::count(offset + at as u64);
                        return failure()
                            .expected(format!(
                                "from byte {place} on {}",
                                bytes::around(expected, at)
                            ))
                            .came(bytes::around(&buffer[..read], at))
                            .stop();
                    }
                    offset += read as u64;
                }
                Err(trouble) => {
                    return failure()
                        .expected(format!("the same {} back", size(to)))
                        .came(so_far(offset, &trouble))
                        .stop();
                }
            }
        }
        Ok(())
    }

    /// Sends `length` bytes of the [`pattern`].
    ///
    /// # Errors
    /// A failure when the connection breaks, or takes nothing for [`STALL`].
    pub fn send_pattern(&mut self, length: u64) -> Result {
        self.write_pattern(length, STALL)
    }

    /// Writes in one thread and reads in another, as a client must that sends
    /// more than the buffers on the way can hold.
    ///
    /// # Errors
    /// A failure when what comes back is not what was sent, all of it.
    pub fn transfer(&mut self, transfer: Transfer) -> Result {
        // While the reader pauses, the writer is rightly held.
        let patience = transfer.pause.map_or(STALL, |(_, pause)| STALL + pause);
        let client = &*self;
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || client.write_transfer(transfer, patience));
            let read = client.read_transfer(transfer);
            if read.is_err() {
                // The writer may be held for ever; this wakes it.
                let _ = client.stream.shutdown(Shutdown::Both);
            }
            let written = writer.join();
            // What the reader saw explains more than the broken pipe after it.
            read?;
            written.unwrap_or_else(|_| Failure::new("writing, in a thread that panicked").stop())
        })?;
        if transfer.half_close {
            self.expect_end()?;
        }
        Ok(())
    }

    fn read_transfer(&self, transfer: Transfer) -> Result {
        let sent = transfer.bytes;
        let mut from = 0;
        if let Some((after, pause)) = transfer.pause {
            self.read_pattern(0, after, sent)?;
            std::thread::sleep(pause);
            from = after;
        }
        self.read_pattern(from, sent, sent)
    }

    fn write_transfer(&self, transfer: Transfer, patience: Duration) -> Result {
        self.write_pattern(transfer.bytes, patience)?;
        if transfer.half_close {
            let closed = self.stream.shutdown(Shutdown::Write);
            closed.during("half-closing the connection")?;
        }
        Ok(())
    }

    fn write_pattern(&self, length: u64, patience: Duration) -> Result {
        let mut offset = 0;
        while offset < length {
            let chunk = (length - offset).min(CHUNK as u64) as usize;
            match self.write(pattern(offset, chunk), patience) {
                Ok(written) => offset += written as u64,
                Err(trouble) => {
                    return Failure::new("sending a pattern")
                        .expected(format!("{} to be taken", size(length)))
                        .came(format!("{trouble}, after {}", size(offset)))
                        .stop();
                }
            }
        }
        Ok(())
    }

    /// Reads at least a byte, and waits at most `time` for it.
    pub(crate) fn read(
        &self,
        buffer: &mut [u8],
        time: Duration,
    ) -> std::result::Result<usize, Trouble> {
        let time = self.deadline.within(time).left();
        let set = self.stream.set_read_timeout(Some(at_least_a_moment(time)));
        set.map_err(Trouble::Error)?;
        loop {
            match (&self.stream).read(buffer) {
                Ok(0) => return Err(Trouble::End),
                Ok(read) => return Ok(read),
                Err(error) => retry_or(error, time)?,
            }
        }
    }

    /// Writes at least a byte, and waits at most `time` for room.
    fn write(&self, message: &[u8], time: Duration) -> std::result::Result<usize, Trouble> {
        let time = self.deadline.within(time).left();
        let set = self.stream.set_write_timeout(Some(at_least_a_moment(time)));
        set.map_err(Trouble::Error)?;
        loop {
            match (&self.stream).write(message) {
                Ok(written) => return Ok(written),
                Err(error) => retry_or(error, time)?,
            }
        }
    }
}

/// A timeout of zero would mean "for ever".
fn at_least_a_moment(time: Duration) -> Duration {
    time.max(Duration::from_millis(1))
}

fn retry_or(error: io::Error, time: Duration) -> std::result::Result<(), Trouble> {
    match error.kind() {
        ErrorKind::Interrupted => Ok(()),
        // A socket's timeout shows as EAGAIN.
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(Trouble::Silence(time)),
        _ => Err(Trouble::Error(error)),
    }
}

fn so_far(got: u64, trouble: &Trouble) -> String {
    if got == 0 {
        trouble.to_string()
    } else {
        format!("{}, then {trouble}", size(got))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use super::*;
    use crate::check::Stop;

    /// Connects a client to a server that is one function.
    fn against(serve: impl FnOnce(TcpStream) + Send + 'static) -> Client {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || serve(listener.accept().expect("a client").0));
        let deadline = Deadline::after(Duration::from_secs(10));
        Client::connect(address, deadline).expect("a connection")
    }

    fn failure(result: Result) -> Failure {
        match result {
            Err(Stop::Failed(failure)) => *failure,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_that_differs_is_shown_at_the_first_difference() {
        let mut client = against(|mut stream| {
            let mut buffer = [0; 5];
            stream.read_exact(&mut buffer).expect("a message");
            stream.write_all(b"hexlo").expect("an answer");
        });
        let failure = failure(client.exchange(b"hello"));
        assert_eq!(failure.sent.as_deref(), Some("\"hello\""));
        assert_eq!(
            failure.expected.as_deref(),
            Some("from byte 2 on \"hello\"")
        );
        assert_eq!(failure.came.as_deref(), Some("\"hexlo\""));
    }

    #[test]
    fn an_answer_that_ends_early_says_how_much_came() {
        let mut client = against(|mut stream| {
            let mut buffer = [0; 5];
            stream.read_exact(&mut buffer).expect("a message");
            stream.write_all(b"he").expect("an answer");
        });
        let failure = failure(client.exchange(b"hello"));
        let came = failure.came.expect("what came");
        assert_eq!(came, "2 bytes, then the end of the stream");
    }

    #[test]
    fn one_wrong_byte_in_a_long_transfer_is_found_and_the_writer_ends() {
        let mut client = against(|mut stream| {
            let mut seen = 0;
            let mut buffer = [0; 8192];
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                if seen <= 1_000_000 && 1_000_000 < seen + read {
                    buffer[1_000_000 - seen] ^= 1;
                }
                seen += read;
                if stream.write_all(&buffer[..read]).is_err() {
                    break;
                }
            }
        });
        let transfer = Transfer {
            bytes: 64 << 20,
            half_close: true,
            pause: None,
        };
        let failure = failure(client.transfer(transfer));
        let expected = failure.expected.expect("what was expected");
        assert!(expected.starts_with("from byte 1,000,000 on"), "{expected}");
    }

    #[test]
    fn a_peer_that_reads_nothing_holds_the_pusher() {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let mut client = against(move |stream| {
            let _ = wait.recv();
            drop(stream);
        });
        let pushed = client.push(1 << 30, Duration::from_millis(100));
        assert!(pushed.is_ok_and(|pushed| pushed.held && pushed.bytes < 64 << 20));
        drop(done);
    }
}
