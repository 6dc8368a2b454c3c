// ANCHOR: all
// ANCHOR: limits
//! HTTP/1.1 on the reactor: a hello page, or the files of a directory.
//!
//! It parses a request before it answers, keeps connections open, takes requests one after
//! another from a pipelining client, and ends with whoever is too slow. Files are read in
//! the loop: on a local disk that is short, on a slow network drive all clients would wait.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    path::{Component, Path, PathBuf},
    rc::Rc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use ch03_reactor::{Handler, Interest, Reactor, Timer, Token};
use clap::Parser;
use httparse::Status;
use percent_encoding::percent_decode_str;
use socket2::SockRef;

/// The most that one read takes, and the most that waits for a client (the high-water mark).
const BUFFER_SIZE: usize = 64 * 1024;

/// The longest request line with its headers that we put up with.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// How long a closed connection may go on sending before we really let go of it.
const LINGER: Duration = Duration::from_secs(2);
// ANCHOR_END: limits

// ANCHOR: arguments
/// Serve a hello page, or a directory's files, over HTTP: a protocol on the event loop
#[derive(Parser)]
struct Args {
    /// The directory whose files are served; without it, every page says hello
    directory: Option<PathBuf>,
    /// Where to listen; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:1337", value_parser = resolve)]
    listen: SocketAddr,
    /// Seconds a client has for each step: to begin a request, to finish it, and to read so much
    /// that the kernel takes more of an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let mut addresses = address.to_socket_addrs()?;
    addresses.next().context("the name has no address")
}
// ANCHOR_END: arguments

// ANCHOR: main
/// What all connections share.
struct Site {
    root: Option<PathBuf>,
    timeout: Duration,
    buffer: RefCell<Vec<u8>>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let address = args.listen;
    let site = Rc::new(Site {
        root: args.directory.as_deref().map(directory).transpose()?,
        timeout: Duration::from_secs(args.timeout),
        buffer: RefCell::new(vec![0; BUFFER_SIZE]),
    });
    let listener = TcpListener::bind(address).context(format!("cannot listen on {address}"))?;
    SockRef::from(&listener).listen(1024)?; // std lets only 128 newcomers wait
    let mut reactor = Reactor::new().context("cannot create the event loop")?;
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);

    reactor.add_listener(listener, move |reactor, stream, peer| {
        let _ = stream.set_nodelay(true); // the last piece of an answer waits for no ACK
        // A new socket can be written, so its first turn comes at once: it sets the timer
        // even for a client that never says a word.
        let connection = Connection::new(peer, Rc::clone(&site));
        reactor.add(stream, Interest::Write, connection)?;
        let _ = writeln!(io::stdout(), "Client {peer} connected");
        Ok(())
    })?;
    reactor.run().context("the event loop failed")
}
// ANCHOR_END: main

// ANCHOR: directory
fn directory(path: &Path) -> anyhow::Result<PathBuf> {
    let readable = path.read_dir().and_then(|_| path.canonicalize());
    readable.with_context(|| format!("cannot serve {}", path.display()))
}
// ANCHOR_END: directory

// ANCHOR: connection
struct Connection {
    peer: SocketAddr,
    site: Rc<Site>,
    /// Requests, or the beginning of one, that are not answered yet.
    input: Vec<u8>,
    /// Answers that wait to be sent, and how much of them has gone out.
    output: Vec<u8>,
    sent: usize,
    /// The file that follows the output, and how many bytes of it.
    body: Option<(File, u64)>,
    state: State,
    timer: Option<Timer>,
}

#[derive(PartialEq)]
enum State {
    Open,
    /// The last answer is under way.
    Closing,
    /// We have said everything and wait for the client to end, too. Closing with unread bytes
    /// would send a reset in place of what is still to be delivered (RFC 9112, 9.6).
    Lingering,
}
// ANCHOR_END: connection

// ANCHOR: readable
impl Handler<TcpStream> for Connection {
    fn readable(
        &mut self,
        reactor: &mut Reactor,
        me: Token,
        mut stream: &TcpStream,
    ) -> io::Result<()> {
        let site = Rc::clone(&self.site);
        let mut buffer = site.buffer.borrow_mut();
        let count = match stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()), // a hint only
            result => result?,
        };
        if count == 0 {
            let _ = writeln!(io::stdout(), "Client {} closed the connection", self.peer);
            self.stop_timer(reactor);
            reactor.remove(me);
        } else if self.state == State::Open {
            if self.input.is_empty() {
                self.start_timer(reactor, me, site.timeout); // for the whole request
            }
            self.input.extend_from_slice(&buffer[..count]);
            drop(buffer);
            self.turn(reactor, me, stream)?;
        }
        Ok(())
    }
    // ANCHOR_END: readable

    // ANCHOR: writable
    fn writable(&mut self, reactor: &mut Reactor, me: Token, stream: &TcpStream) -> io::Result<()> {
        self.turn(reactor, me, stream)
    }

    fn failed(&mut self, reactor: &mut Reactor, error: io::Error) {
        let _ = writeln!(io::stderr(), "Client {}: {error}", self.peer);
        self.stop_timer(reactor);
    }
}
// ANCHOR_END: writable

// ANCHOR: new
impl Connection {
    fn new(peer: SocketAddr, site: Rc<Site>) -> Connection {
        Connection {
            peer,
            site,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            body: None,
            state: State::Open,
            timer: None,
        }
    }
    // ANCHOR_END: new

    // ANCHOR: turn
    /// Answers what it can, sends what the socket takes, and settles what to wait for.
    fn turn(&mut self, reactor: &mut Reactor, me: Token, stream: &TcpStream) -> io::Result<()> {
        let starved = self.answer();
        self.read_body()?;
        let sent = send(stream, &self.output[self.sent..])?;
        self.sent += sent;
        if self.sent == self.output.len() {
            (self.output, self.sent) = (Vec::new(), 0);
        }
        if sent > 0 || self.timer.is_none() {
            self.start_timer(reactor, me, self.site.timeout); // it moves: time for the next step
        }
        // ANCHOR_END: turn

        // ANCHOR: interest
        let interest = if !self.output.is_empty() || self.body.is_some() {
            Interest::Write
        } else if self.state == State::Closing {
            stream.shutdown(Shutdown::Write)?;
            self.state = State::Lingering;
            self.start_timer(reactor, me, LINGER);
            Interest::Read
        } else if starved {
            Interest::Read
        } else {
            Interest::Write // more requests are here already; others have their turn first
        };
        reactor.set_interest(me, interest)
    }
    // ANCHOR_END: interest

    // ANCHOR: answer
    /// Answers the requests in the input until enough waits to be sent. True if the input
    /// has no complete request any more.
    fn answer(&mut self) -> bool {
        let mut answered = 0;
        let mut starved = false;
        while self.state == State::Open && self.body.is_none() && self.output.len() < BUFFER_SIZE {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut request = httparse::Request::new(&mut headers);
            let answer = match request.parse(&self.input[answered..]) {
                Ok(Status::Complete(length)) if length <= MAX_HEAD => {
                    answered += length;
                    Answer::to(&request, &self.site)
                }
                Ok(Status::Partial) if self.input.len() - answered < MAX_HEAD => {
                    starved = true;
                    break;
                }
                Ok(_) | Err(httparse::Error::TooManyHeaders) => {
                    Answer::garbage("431 Request Header Fields Too Large")
                }
                Err(httparse::Error::Version) => Answer::garbage("505 HTTP Version Not Supported"),
                Err(_) => Answer::garbage("400 Bad Request"),
            };
            if answer.close {
                self.state = State::Closing;
            }
            self.body = answer.write(&mut self.output);
        }
        self.input.drain(..answered);
        if self.state == State::Closing || self.input.is_empty() {
            self.input = Vec::new(); // what follows the end is not answered; and no idle memory
        }
        starved
    }
    // ANCHOR_END: answer

    // ANCHOR: body
    /// Fills the room in the output with the next piece of the file.
    fn read_body(&mut self) -> io::Result<()> {
        let room = BUFFER_SIZE.saturating_sub(self.output.len()) as u64;
        if let Some((file, left)) = &mut self.body
            && room > 0
        {
            let most = room.min(*left);
            self.output.reserve(most as usize);
            let piece = file.take(most).read_to_end(&mut self.output)?;
            *left -= piece as u64;
            if *left == 0 {
                self.body = None;
            } else if piece == 0 {
                // We promised a length that cannot be kept: only a broken connection says so.
                return Err(io::Error::other("the file became shorter on its way"));
            }
        }
        Ok(())
    }
    // ANCHOR_END: body

    // ANCHOR: timers
    fn start_timer(&mut self, reactor: &mut Reactor, me: Token, after: Duration) {
        self.stop_timer(reactor);
        let peer = self.peer;
        self.timer = Some(reactor.add_timer(after, move |reactor| {
            let _ = writeln!(io::stdout(), "Client {peer} ran out of time");
            reactor.remove(me);
        }));
    }

    fn stop_timer(&mut self, reactor: &mut Reactor) {
        if let Some(timer) = self.timer.take() {
            reactor.cancel(timer);
        }
    }
}
// ANCHOR_END: timers

// ANCHOR: send
/// Writes what the socket takes now, which may be less than all, or nothing.
fn send(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    match stream.write(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}
// ANCHOR_END: send

// ANCHOR: answers
/// An answer: its status line, headers and body.
struct Answer {
    status: &'static str,
    headers: String,
    body: Body,
    /// HEAD asks for everything but the body itself.
    head_only: bool,
    /// No request after this one will be answered.
    close: bool,
}

enum Body {
    Text(String),
    File(File, u64),
}

impl Answer {
    fn plain(status: &'static str) -> Answer {
        Answer {
            status,
            headers: "Content-Type: text/plain; charset=utf-8\r\n".into(),
            body: Body::Text(format!("{status}\n")),
            head_only: false,
            close: false,
        }
    }

    /// For what is not HTTP: where the next request begins, nobody knows.
    fn garbage(status: &'static str) -> Answer {
        Answer {
            close: true,
            ..Answer::plain(status)
        }
    }
    // ANCHOR_END: answers

    // ANCHOR: judge
    fn to(request: &httparse::Request, site: &Site) -> Answer {
        let values = |name: &'static str| {
            let named = request
                .headers
                .iter()
                .filter(move |it| it.name.eq_ignore_ascii_case(name));
            named.map(|it| it.value.trim_ascii())
        };
        let version_1_1 = request.version == Some(1);
        // RFC 9112: 3.2 asks for one host, 6.3 for a length that is a number.
        let no_number = |it: &[u8]| it.is_empty() || !it.iter().all(u8::is_ascii_digit);
        let bad =
            version_1_1 && values("host").count() != 1 || values("content-length").any(no_number);
        let method = request.method.unwrap_or_default();
        let mut answer = match method {
            _ if bad => Answer::garbage("400 Bad Request"),
            "GET" | "HEAD" => Answer::page(request.path.unwrap_or_default(), site),
            _ => {
                let mut answer = Answer::plain("405 Method Not Allowed");
                answer.headers += "Allow: GET, HEAD\r\n";
                answer
            }
        };
        // ANCHOR_END: judge
        // ANCHOR: closes
        // We read no request bodies, so after one the next request cannot be found.
        let has_body = values("content-length").any(|it| it != b"0")
            || values("transfer-encoding").next().is_some();
        let mut options = values("connection").flat_map(|it| it.split(|&byte| byte == b','));
        let wants_close = options.any(|it| it.trim_ascii().eq_ignore_ascii_case(b"close"));
        answer.close |= !version_1_1 || has_body || wants_close;
        answer.head_only = method == "HEAD";
        answer
    }
    // ANCHOR_END: closes

    // ANCHOR: page
    fn page(target: &str, site: &Site) -> Answer {
        // A client may also send the whole URL (RFC 9112, 3.2.2).
        let path = match target.strip_prefix("http://") {
            Some(rest) => rest.find('/').map_or("/", |start| &rest[start..]),
            None => target,
        };
        if !path.starts_with('/') {
            return Answer::garbage("400 Bad Request");
        }
        let Some(root) = &site.root else {
            let mut answer = Answer::plain("200 OK");
            answer.headers = "Content-Type: text/html; charset=utf-8\r\n".into();
            answer.body =
                Body::Text("<!doctype html><title>Hello</title><h1>Hello, world</h1>\n".into());
            return answer;
        };
        find(root, path).unwrap_or_else(|error| match error.kind() {
            ErrorKind::NotFound
            | ErrorKind::NotADirectory
            | ErrorKind::InvalidInput
            | ErrorKind::InvalidFilename => Answer::plain("404 Not Found"),
            ErrorKind::PermissionDenied => Answer::plain("403 Forbidden"),
            _ => {
                let _ = writeln!(io::stderr(), "cannot serve {path:?}: {error}");
                Answer::plain("503 Service Unavailable")
            }
        })
    }
    // ANCHOR_END: page

    // ANCHOR: write
    /// Adds the answer to the output. A file is left to be read while there is room.
    fn write(self, output: &mut Vec<u8>) -> Option<(File, u64)> {
        let length = match &self.body {
            Body::Text(text) => text.len() as u64,
            Body::File(_, length) => *length,
        };
        let Answer {
            status, headers, ..
        } = self;
        let date = httpdate::fmt_http_date(SystemTime::now());
        let connection = if self.close {
            "Connection: close\r\n"
        } else {
            ""
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Length: {length}\r\n{headers}{connection}\r\n"
        );
        output.extend_from_slice(head.as_bytes());
        match self.body {
            _ if self.head_only || length == 0 => {}
            Body::Text(text) => output.extend_from_slice(text.as_bytes()),
            Body::File(file, length) => return Some((file, length)),
        }
        None
    }
}
// ANCHOR_END: write

// ANCHOR: path
/// The file that a path names below the root. A directory's name ends with a slash, and
/// stands for its index.html.
fn find(root: &Path, path: &str) -> io::Result<Answer> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let path = percent_decode_str(path)
        .decode_utf8()
        .map_err(|_| ErrorKind::NotFound)?;
    let relative = Path::new(path.trim_start_matches('/'));
    // Names only: no "..", no drive letter. Links are followed, but not out of the root.
    let mut parts = relative.components();
    if !parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(ErrorKind::NotFound.into());
    }
    let mut file = root.join(relative).canonicalize()?;
    if path.ends_with('/') {
        file = file.join("index.html").canonicalize()?;
    }
    // Opening a named pipe would block, and reading a device might never end.
    if !file.starts_with(root) || !file.metadata()?.is_file() {
        return Err(ErrorKind::NotFound.into());
    }
    // ANCHOR_END: path
    // ANCHOR: file
    let kind = mime_guess::from_path(&file).first_or_octet_stream();
    let charset = if kind.type_() == "text" {
        "; charset=utf-8"
    } else {
        ""
    };
    let file = File::open(file)?;
    let length = file.metadata()?.len();
    Ok(Answer {
        headers: format!("Content-Type: {kind}{charset}\r\n"),
        body: Body::File(file, length),
        ..Answer::plain("200 OK")
    })
}
// ANCHOR_END: file
// ANCHOR_END: all
