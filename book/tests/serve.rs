//! `cargo run -p book`: the pages are served, and stay fresh.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use common::{good, repository};

mod common;

/// Long enough for a compiler, if the server of chapter 3 is not built yet.
const PATIENCE: Duration = Duration::from_secs(120);

struct Served {
    tool: Child,
    out: BufReader<ChildStdout>,
    errors: BufReader<ChildStderr>,
    address: String,
    folder: TempDir,
}

impl Served {
    fn start() -> Served {
        let folder = repository(&[("book/book.old/left.html", "by one that was ended")]);
        let mut tool = Command::new(env!("CARGO_BIN_EXE_book"))
            .arg("127.0.0.1:0")
            .arg("--repository")
            .arg(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the tool runs");
        let mut out = BufReader::new(tool.stdout.take().expect("piped"));
        let errors = BufReader::new(tool.stderr.take().expect("piped"));
        let line = next_line(&mut out);
        let address = line
            .strip_prefix("The book is at http://")
            .expect("the first line");
        let address = address.split(' ').next().expect("an address").to_string();
        Served {
            tool,
            out,
            errors,
            address,
            folder,
        }
    }

    fn get(&self, path: &str) -> String {
        answer(&mut ask(&self.address, path))
    }

    fn rewrite_page(&self, old: &str, new: &str) {
        let page = good("book/en/echo.md").replace(old, new);
        fs::write(self.folder.path().join("book/en/echo.md"), page).expect("writable");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.tool.kill();
        let _ = self.tool.wait();
    }
}

fn next_line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).expect("readable");
    line.trim_end().to_string()
}

fn ask(address: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("a server");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .expect("writable");
    stream
}

fn answer(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("an answer in time");
    answer
}

#[test]
fn pages_are_served_and_open_ones_learn_of_a_change() {
    let mut served = Served::start();
    let page = served.get("/echo.html");
    assert!(
        page.starts_with("HTTP/1.1 200 OK") && page.contains("sends back what came"),
        "{page}"
    );
    assert!(
        served
            .get("/chapters/ch01-echo/src/main.rs")
            .contains("fn main"),
        "a link of a caption"
    );

    // What the page's script does.
    let script = page
        .split("fetch(\"http://")
        .nth(1)
        .expect("a script")
        .split('"')
        .next()
        .expect("a URL");
    let (reloads, build) = script.split_once('/').expect("a path");
    let mut waiting = ask(reloads, &format!("/{build}"));
    // To read a source is no change: the page hears nothing of it for a second.
    fs::read(served.folder.path().join("book/en/echo.md")).expect("readable");
    let silence = Duration::from_secs(1);
    waiting.set_read_timeout(Some(silence)).expect("a timeout");
    let heard = waiting.read(&mut [0; 64]).map_err(|error| error.kind());
    assert_eq!(heard, Err(ErrorKind::WouldBlock));
    waiting.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    served.rewrite_page("sends back", "returns");
    assert!(
        answer(&mut waiting).starts_with("HTTP/1.1 204"),
        "the open page learns of it"
    );
    assert_eq!(next_line(&mut served.out), "Built again");
    assert!(served.get("/echo.html").contains("returns what came"));
    let late = answer(&mut ask(reloads, &format!("/{build}")));
    assert!(
        late.starts_with("HTTP/1.1 204"),
        "a page of an older build need not wait"
    );

    // A mistake does not take the book away.
    served.rewrite_page("An <dfn", "<details>\n\nAn <dfn");
    let said = next_line(&mut served.errors);
    assert_eq!(said, "The old pages stay: mdBook warns:");
    assert!(served.get("/echo.html").contains("returns what came"));
}

#[test]
fn it_takes_its_server_with_it() {
    let mut served = Served::start();
    let mut held = TcpStream::connect(&served.address).expect("a server");
    held.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    kill(Pid::from_raw(served.tool.id() as i32), Signal::SIGTERM).expect("alive");
    let status = served.tool.wait().expect("a status");
    assert_eq!(status.code(), Some(0));
    let end = held.read(&mut [0; 64]);
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    TcpStream::connect(&served.address).expect_err("nobody listens any more");
}

#[test]
fn a_taken_port_is_refused_with_a_reason() {
    let served = Served::start();
    let second = Command::new(env!("CARGO_BIN_EXE_book"))
        .arg(&served.address)
        .arg("--repository")
        .arg(repository(&[]).path())
        .output()
        .expect("the tool runs");
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(
        said.contains(&format!("cannot listen on {}", served.address)),
        "{said}"
    );
}
