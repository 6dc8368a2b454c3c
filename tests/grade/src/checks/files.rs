//! An HTTP server of a directory: its files, all of each, and nothing else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use crate::bytes::{self, pattern};
use crate::catalog::Traits;
use crate::check::{Case, Check, During, Failure, ORDINARY, Result};
use crate::checks::http::ask_alone;
use crate::http::{Answer, Answers, request, show_request};
use crate::job::describe;
use crate::server::{Launch, Server, run_to_end};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "files come with their content and their type",
        cause: "the type is guessed wrongly, or is the same for all",
        section: "ch03-reactor/http.md#files",
        descriptors: ORDINARY,
        applies: Traits::serves_files,
        run: types,
    },
    Check {
        name: "names with spaces, percent signs and other letters are found",
        cause: "the percent-encoding of the target is not decoded, or twice, or the query is \
                taken for a part of the name",
        section: "ch03-reactor/http.md#targets",
        descriptors: ORDINARY,
        applies: Traits::serves_files,
        run: names,
    },
    Check {
        name: "an empty file is an answer of no bytes",
        cause: "a read of 0 bytes ends the connection, or no Content-Length is sent",
        section: "ch03-reactor/http.md#files",
        descriptors: ORDINARY,
        applies: Traits::serves_files,
        run: empty_file,
    },
    Check {
        name: "a file of 8 MiB comes byte for byte, and the connection goes on",
        cause: "a write that took only a part is treated as finished, or the connection is \
                closed behind a large file",
        section: "ch02-select/back-pressure.md#partial-writes",
        descriptors: ORDINARY,
        applies: Traits::serves_files,
        run: large_file,
    },
    Check {
        name: "a half-close after asking for 8 MiB does not cut the file",
        cause: "the end of the stream is taken as \"drop everything\" while an answer waits",
        section: "ch01-echo/endings.md#half-close",
        descriptors: ORDINARY,
        applies: Traits::serves_files,
        run: large_file_after_half_close,
    },
    Check {
        name: "a target that ends with a slash is its directory's index.html",
        cause: "a directory is opened like a file",
        section: "ch03-reactor/http.md#files",
        descriptors: ORDINARY,
        applies: Traits::serves_files,
        run: index,
    },
    Check {
        name: "what is no file is answered with 404 at once",
        cause: "opening a named pipe waits for somebody who writes to it, and with it wait all \
                clients; or a directory is read like a file",
        section: "ch03-reactor/http.md#files",
        descriptors: ORDINARY,
        applies: Traits::serves_files,
        run: no_files,
    },
    Check {
        name: "nothing outside the directory ever comes back",
        cause: "\"..\", a slash or a NUL that was percent-encoded is looked for before it is \
                decoded, or links are followed out of the directory",
        section: "ch03-reactor/http.md#path-traversal",
        descriptors: ORDINARY,
        applies: Traits::serves_files,
        run: traversal,
    },
    Check {
        name: "a directory that is not there is refused with a reason",
        cause: "the directory is looked at for the first time when a request comes",
        section: "ch03-reactor/http.md#files",
        descriptors: ORDINARY,
        applies: Traits::serves_files,
        run: no_directory,
    },
];

/// A directory to be served, inside another one which must not be.
#[derive(Debug)]
pub(super) struct Site {
    around: TempDir,
}

impl Site {
    /// Makes an empty one.
    pub(super) fn new() -> Result<Site> {
        let around = TempDir::new().during("making a directory")?;
        let site = Site { around };
        fs::create_dir(site.path("")).during("making the directory that is served")?;
        Ok(site)
    }

    /// Adds a file, with its directories.
    pub(super) fn add(&mut self, name: &str, content: &[u8]) -> Result {
        let path = self.path(name);
        let directory = path.parent().map_or(Ok(()), fs::create_dir_all);
        directory.during("making a directory that is served")?;
        fs::write(path, content).during("writing a file that is served")
    }

    /// Adds a file of the [`pattern`].
    pub(super) fn add_pattern(&mut self, name: &str, length: u64) -> Result {
        let mut content = Vec::with_capacity(length as usize);
        while (content.len() as u64) < length {
            let missing = length - content.len() as u64;
            content.extend_from_slice(pattern(content.len() as u64, missing as usize));
        }
        self.add(name, &content)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.around.path().join("site").join(name)
    }

    /// Serves it, as [`Case::serve`] does, with further arguments.
    pub(super) fn serve(
        &self,
        case: &Case,
        arguments: &[&str],
        body: impl FnOnce(&Server) -> Result,
    ) -> Result {
        case.conventions()?;
        let directory = self.path("");
        let launch = Launch::new(case.program, case.deadline)
            .arguments(&[&directory.to_string_lossy()])
            .arguments(arguments);
        case.serve_with(launch, body)
    }
}

fn get(case: &Case, server: &Server, target: &str, statuses: &[u16]) -> Result<Answer> {
    let request = request("GET", target);
    let answer = ask_alone(case, server, &request)?;
    answer.require(&request, statuses)?;
    Ok(answer)
}

/// Asks for a file, which must come with this content.
fn expect_file(case: &Case, server: &Server, target: &str, content: &[u8]) -> Result<Answer> {
    let answer = get(case, server, target, &[200])?;
    match bytes::first_difference(&answer.body, content) {
        None => Ok(answer),
        Some(at) => Failure::new("reading a file")
            .sent(show_request(&request("GET", target)))
            .expected(format!("from byte {at} on {}", bytes::around(content, at)))
            .came(bytes::around(&answer.body, at))
            .stop(),
    }
}

fn types(case: &Case) -> Result {
    let kinds: [(&str, &[&str]); 9] = [
        ("page.html", &["text/html"]),
        ("style.css", &["text/css"]),
        ("script.js", &["text/javascript", "application/javascript"]),
        ("drawing.svg", &["image/svg+xml"]),
        ("picture.png", &["image/png"]),
        ("words.txt", &["text/plain"]),
        ("data.json", &["application/json"]),
        ("letters.woff2", &["font/woff2"]),
        ("what.is-this", &["application/octet-stream"]),
    ];
    let mut site = Site::new()?;
    for (number, (name, _)) in kinds.iter().enumerate() {
        site.add(name, pattern(number as u64, 1_000 + number))?;
    }
    site.serve(case, &[], |server| {
        for (number, (name, types)) in kinds.iter().enumerate() {
            let content = pattern(number as u64, 1_000 + number);
            let answer = expect_file(case, server, &format!("/{name}"), content)?;
            let came = answer.header("content-type").unwrap_or("nothing");
            let essence = came.split(';').next().unwrap_or_default().trim();
            if !types.contains(&essence) {
                return Failure::new(format!("reading the Content-Type of {name}"))
                    .expected(types.join(" or "))
                    .came(came)
                    .stop();
            }
        }
        Ok(())
    })
}

fn names(case: &Case) -> Result {
    let names = [
        ("plain.txt", "/plain.txt?version=2"),
        ("two words.txt", "/two%20words.txt"),
        ("100%.txt", "/100%25.txt"),
        ("%41.txt", "/%2541.txt"),
        ("letters.txt", "/%6cetter%73%2Etxt"),
        ("hänä.txt", "/h%C3%A4n%c3%a4.txt"),
        ("1+1.txt", "/1+1.txt"),
        ("what?.txt", "/what%3F.txt?"),
        (".well-known/security.txt", "/.well-known/security.txt"),
        ("dots..txt", "/dots..txt"),
        ("deep/down/here.txt", "/deep/down/here.txt"),
    ];
    let mut site = Site::new()?;
    for (name, _) in names {
        site.add(name, name.as_bytes())?;
    }
    site.serve(case, &[], |server| {
        for (name, target) in names {
            expect_file(case, server, target, name.as_bytes())?;
        }
        Ok(())
    })
}

fn empty_file(case: &Case) -> Result {
    let mut site = Site::new()?;
    site.add("empty.txt", b"")?;
    site.add("full.txt", b"full")?;
    site.serve(case, &[], |server| {
        let mut client = case.client(server)?;
        let mut answers = Answers::of(&mut client);
        for (target, content) in [
            ("/empty.txt", ""),
            ("/full.txt", "full"),
            ("/empty.txt", ""),
        ] {
            let request = request("GET", target);
            let answer = answers.ask(&request)?;
            answer.require(&request, &[200])?;
            if answer.body != content.as_bytes() {
                return Failure::new("reading files of 0 and 4 bytes")
                    .sent(show_request(&request))
                    .expected(format!("{content:?}"))
                    .came(answer.summary())
                    .stop();
            }
        }
        answers.leave()
    })
}

/// The size of a large file: more than any buffer on the way.
pub(super) const LARGE: u64 = 8 << 20;

fn large_file(case: &Case) -> Result {
    let mut site = Site::new()?;
    site.add_pattern("large", LARGE)?;
    site.serve(case, &[], |server| {
        let request = request("GET", "/large");
        let mut client = case.client(server)?;
        let mut answers = Answers::of(&mut client);
        for _ in 0..2 {
            answers.client().send(&request)?;
            expect_pattern(&mut answers, &request, LARGE)?;
        }
        answers.leave()
    })
}

fn large_file_after_half_close(case: &Case) -> Result {
    let mut site = Site::new()?;
    site.add_pattern("large", LARGE)?;
    site.serve(case, &[], |server| {
        let request = request("GET", "/large");
        let mut client = case.client(server)?;
        let mut answers = Answers::of(&mut client);
        answers.client().send(&request)?;
        answers.client().finish_sending()?;
        expect_pattern(&mut answers, &request, LARGE)?;
        answers.end()
    })
}

/// Reads the answer to a request for a file of the [`pattern`].
fn expect_pattern(answers: &mut Answers, request: &[u8], length: u64) -> Result {
    let head = answers.head(request)?;
    head.require(request, &[200])?;
    if head.length() != Some(length) {
        return Failure::new("reading the length of a large file")
            .sent(show_request(request))
            .expected(length.to_string())
            .came(format!("{:?}", head.length()))
            .stop();
    }
    let mut offset = 0;
    while offset < length {
        offset += expect_part(answers, request, offset, length)?;
    }
    Ok(())
}

/// Reads up to 64 KiB of a file of the [`pattern`], and says how much.
pub(super) fn expect_part(
    answers: &mut Answers,
    request: &[u8],
    offset: u64,
    length: u64,
) -> Result<u64> {
    let expected = pattern(offset, (length - offset) as usize);
    let part = answers.body(request, expected.len() as u64)?;
    match bytes::first_difference(&part, expected) {
        None => Ok(part.len() as u64),
        Some(at) => Failure::new("reading a large file")
            .sent(show_request(request))
            .expected(format!(
                "from byte {} on {}",
                bytes::count(offset + at as u64),
                bytes::around(expected, at)
            ))
            .came(bytes::around(&part, at))
            .stop(),
    }
}

fn index(case: &Case) -> Result {
    let mut site = Site::new()?;
    site.add("index.html", b"the top")?;
    site.add("below/index.html", b"the bottom")?;
    site.serve(case, &[], |server| {
        for (target, content) in [
            ("/", "the top"),
            ("/below/", "the bottom"),
            ("/?", "the top"),
            ("http://grade.example", "the top"),
            ("http://grade.example/below/", "the bottom"),
        ] {
            let answer = expect_file(case, server, target, content.as_bytes())?;
            let kind = answer.header("content-type").unwrap_or("nothing");
            if !kind.starts_with("text/html") {
                return Failure::new("reading the Content-Type of an index.html")
                    .sent(show_request(&request("GET", target)))
                    .expected("text/html")
                    .came(kind)
                    .stop();
            }
        }
        Ok(())
    })
}

fn no_files(case: &Case) -> Result {
    let mut site = Site::new()?;
    site.add("empty/but/one", b"no index here")?;
    let everyone = Mode::from_bits_truncate(0o666);
    mkfifo(&site.path("pipe"), everyone).during("making a named pipe")?;
    symlink("pipe", site.path("link-to-pipe")).during("making a link")?;
    let long = format!("/{}", "x".repeat(2_000));
    site.serve(case, &[], |server| {
        for target in [
            "/pipe",
            "/link-to-pipe",
            "/empty/",
            "/empty/but/",
            "/",
            "/missing",
            "/missing/",
            "/empty/but/one/more",
            "/empty/but/one/",
            &long,
        ] {
            get(case, server, target, &[404])?;
        }
        expect_file(case, server, "/empty/but/one", b"no index here").map(drop)
    })
}

/// What must stay where it is.
const SECRET: &str = "the secret beside the site";

fn traversal(case: &Case) -> Result {
    let mut site = Site::new()?;
    site.add("index.html", b"public")?;
    site.add("below/index.html", b"public")?;
    let outside = site.around.path().to_path_buf();
    let secret = outside.join("secret.txt");
    fs::write(&secret, SECRET).during("writing a secret")?;
    // A directory whose name only begins like the one that is served.
    let beside = outside.join("site-of-others");
    fs::create_dir(&beside).during("making another directory")?;
    fs::write(beside.join("secret.txt"), SECRET).during("writing another secret")?;
    symlink(&secret, site.path("link.txt")).during("making a link")?;
    symlink("../secret.txt", site.path("relative.txt")).during("making a link")?;
    symlink("..", site.path("up")).during("making a link")?;
    let absolute = secret.to_string_lossy();
    let encoded = absolute.replace('/', "%2F");
    let targets = [
        "/../secret.txt",
        "../secret.txt",
        "/./../secret.txt",
        "/below/../../secret.txt",
        "/below/%2e%2e/%2e%2e/secret.txt",
        "/%2e%2e/secret.txt",
        "/%2E%2E/secret.txt",
        "/.%2e/secret.txt",
        "/%2e./secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e%2fsecret.txt",
        "/%2e%2e%2Fsecret.txt",
        "/%252e%252e%252fsecret.txt",
        "/..;/secret.txt",
        "/....//secret.txt",
        "//../secret.txt",
        "/..//secret.txt",
        "/..\\secret.txt",
        "/..%5csecret.txt",
        "/%2e%2e%5csecret.txt",
        "/%c0%ae%c0%ae/secret.txt",
        "/../site/../secret.txt",
        "/../site-of-others/secret.txt",
        "/..%2fsite-of-others/secret.txt",
        "/../secret.txt%00.html",
        "/link.txt%00",
        "/%00/../../secret.txt",
        "/index.html\0/../../secret.txt",
        "/index.html/../../secret.txt",
        "/?/../../secret.txt",
        "/../secret.txt?",
        "/../secret.txt#index.html",
        "http://grade.example/../secret.txt",
        "http://grade.example/%2e%2e/secret.txt",
        "http://../secret.txt",
        "file:///secret.txt",
        "/link.txt",
        "/relative.txt",
        "/up/secret.txt",
        "/up/site/link.txt",
        &absolute,
        &format!("/{absolute}"),
        &format!("//{absolute}"),
        &encoded,
        &format!("/{encoded}"),
        &format!("file://{absolute}"),
    ];
    site.serve(case, &[], |server| {
        for target in targets {
            let request = request("GET", target);
            let answer = ask_alone(case, server, &request)?;
            let leaked = String::from_utf8_lossy(&answer.body).contains(SECRET);
            // "/?/.." asks for the page, with an odd query.
            let served = answer.status == 200 && answer.body != b"public";
            if leaked || served || answer.status >= 500 {
                return Failure::new("asking for a file outside the directory")
                    .sent(show_request(&request))
                    .expected("status 400, 403 or 404")
                    .came(answer.summary())
                    .stop();
            }
        }
        Ok(())
    })
}

fn no_directory(case: &Case) -> Result {
    let mut site = Site::new()?;
    site.add("file", b"not a directory")?;
    for name in ["nowhere", "file"] {
        let path = site.path(name);
        let path = path.to_string_lossy();
        let address: Vec<_> = case.program.at("127.0.0.1:0").collect();
        let arguments = [&[&*path], &address[..]].concat();
        let executable = case.conventions()?.to_path_buf();
        let ending = run_to_end(executable, &arguments, None, case.deadline)?;
        let refused = matches!(ending.status.code(), Some(1 | 2)) && ending.stdout.is_empty();
        if !refused || !ending.stderr.contains(&*path) || ending.stderr.contains("panicked at") {
            return Failure::new("running the program to its end")
                .sent(format!("the directory {path}"))
                .expected("exit status 1, and on standard error the path and the reason")
                .came(format!("{}: {}", describe(ending.status), ending.stderr))
                .stop();
        }
    }
    Ok(())
}
