//! `fast-upstream`: a streamable-http MCP server that echoes in about ten microseconds, both eras. With `--work MICROSECONDS` it
//! keeps its core busy for so long on every message, as `fast-stdio` does.

use std::{
    convert::Infallible,
    error::Error,
    io::Read,
    net::{SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use archestra_benches::peer::{Carrier, Eras, Outcome, answer};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{runtime::Builder, sync::mpsc, task::JoinSet, time::Instant};

const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const USAGE: &str = "flags: --listen ADDRESS, --era modern|legacy|both, --threads N, --work MICROSECONDS, --until-eof";

type Failure = Box<dyn Error + Send + Sync>;

struct Options {
    listen: SocketAddr,
    eras: Eras,
    threads: usize,
    work: Option<Duration>,
    until_eof: bool,
}

#[expect(clippy::print_stderr, reason = "a program tells the person who runs it what went wrong")]
fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("fast-upstream: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, Failure> {
    let mut options = Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        eras: Eras::Both,
        threads: 1,
        work: None,
        until_eof: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(USAGE);
        match argument.as_str() {
            "--listen" => options.listen = value()?.parse()?,
            "--era" => options.eras = Eras::parse(&value()?).ok_or(USAGE)?,
            "--threads" => options.threads = value()?.parse::<usize>()?.max(1),
            "--work" => options.work = Some(Duration::from_micros(value()?.parse()?)),
            "--until-eof" => options.until_eof = true,
            _ => return Err(USAGE.into()),
        }
    }
    Ok(options)
}

#[expect(clippy::print_stdout, reason = "whoever starts it reads the address it got")]
fn run(options: &Options) -> Result<(), Failure> {
    let listener = TcpListener::bind(options.listen)?;
    println!("listening {}", listener.local_addr()?);
    // Connections stay on the thread that got them: no work moves between cores during a call.
    let workers: Vec<_> = (0..options.threads)
        .map(|_| {
            let (sender, receiver) = mpsc::channel(1024);
            let (eras, work) = (options.eras, options.work);
            thread::spawn(move || serve_connections(receiver, eras, work));
            sender
        })
        .collect();
    let acceptor = thread::spawn(move || accept(&listener, &workers));
    if options.until_eof {
        std::io::stdin().read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    acceptor.join().map_err(|_| "the acceptor panicked")?
}

fn accept(listener: &TcpListener, workers: &[mpsc::Sender<TcpStream>]) -> Result<(), Failure> {
    for worker in workers.iter().cycle() {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        worker.blocking_send(stream)?;
    }
    Ok(())
}

fn serve_connections(
    mut streams: mpsc::Receiver<TcpStream>,
    eras: Eras,
    work: Option<Duration>,
) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let mut connections = JoinSet::new();
        while let Some(stream) = streams.recv().await {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            connections.spawn(async move {
                let service = service_fn(move |request| serve(request, eras, work));
                // A client that goes away in the middle is nothing to report.
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
            });
            while connections.try_join_next().is_some() {}
        }
        Ok(())
    })
}

async fn serve(
    request: Request<Incoming>,
    eras: Eras,
    work: Option<Duration>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::POST {
        return Ok(respond(StatusCode::METHOD_NOT_ALLOWED, Vec::new()));
    }
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return Ok(respond(StatusCode::BAD_REQUEST, Vec::new()));
    };
    let start = Instant::now();
    let header = |name: &HeaderName| head.headers.get(name).map(HeaderValue::as_bytes);
    let carrier = match (header(&METHOD), header(&SESSION)) {
        (_, Some(_)) if eras != Eras::Modern => Carrier::Session,
        (method @ Some(_), _) if eras != Eras::Legacy => Carrier::Modern { method, name: header(&NAME) },
        _ if eras == Eras::Modern => Carrier::Modern { method: None, name: None },
        _ => Carrier::NoSession,
    };
    let mut out = Vec::with_capacity(512);
    let outcome = answer(&body.to_bytes(), eras, carrier, &mut out);
    let status = match outcome {
        Outcome::Answered | Outcome::Opened => StatusCode::OK,
        Outcome::Accepted => StatusCode::ACCEPTED,
        Outcome::Unknown if matches!(carrier, Carrier::Modern { .. }) => StatusCode::NOT_FOUND,
        Outcome::Unknown => StatusCode::OK,
        Outcome::Refused => StatusCode::BAD_REQUEST,
    };
    if let Some(work) = work {
        while start.elapsed() < work {
            std::hint::spin_loop();
        }
    }
    let mut response = respond(status, out);
    if outcome == Outcome::Opened {
        response.headers_mut().insert(SESSION, new_session());
    }
    Ok(response)
}

fn new_session() -> HeaderValue {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    HeaderValue::from(COUNT.fetch_add(1, Ordering::Relaxed))
}

fn respond(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
