//! Commands that are executed in containers: what an image has of them, and the stream that each is run over.

use super::{
    api::Answer,
    cluster::Inner,
    kubelet::Programs,
    query::Query,
    refusal::Refusal,
    socket::{self, CLOSE, STATUS, STDERR, STDIN, STDOUT, Socket, Target, frame},
    store::Key,
};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _, future::BoxFuture, stream::SplitStream};
use http::request::Parts;
use serde_json::{Value, json};
use std::{fmt, sync::Arc};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

/// What waits for a command, and for whoever reads what it writes.
const WAITING: usize = 64;
/// What a process ends with that is killed.
const KILLED: i32 = 137;

/// One run of a command in a container, as `kubectl exec` asks for it.
///
/// Its future is the process: what it resolves to is the exit code, and when the container ends, it is dropped.
#[derive(Debug)]
pub struct FakeExec {
    command: Vec<String>,
    input: mpsc::Receiver<Bytes>,
    output: mpsc::Sender<(u8, Bytes)>,
    errors_to: u8,
}

impl FakeExec {
    /// Its command line, the program first.
    #[must_use]
    pub fn command(&self) -> &[String] {
        &self.command
    }

    /// The next piece of its standard input; `None` at the end, which is at once where no input was asked for.
    ///
    /// A client that speaks `v4.channel.k8s.io` cannot say that its input has ended, as in a real cluster.
    pub async fn read(&mut self) -> Option<Bytes> {
        self.input.recv().await
    }

    /// Writes to its standard output. What nobody asked for is lost.
    pub async fn write(&self, bytes: impl Into<Bytes>) {
        // A client that is gone needs nothing.
        drop(self.output.send((STDOUT, bytes.into())).await);
    }

    /// Writes to its standard error, which is the output where a terminal was asked for.
    pub async fn write_error(&self, bytes: impl Into<Bytes>) {
        // A client that is gone needs nothing.
        drop(self.output.send((self.errors_to, bytes.into())).await);
    }
}

/// What a program does.
#[derive(Clone)]
pub(super) struct Program(Arc<dyn Fn(FakeExec) -> BoxFuture<'static, i32> + Send + Sync>);

impl Program {
    pub(super) fn new<F>(run: impl Fn(FakeExec) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = i32> + Send + 'static,
    {
        Self(Arc::new(move |exec| Box::pin(run(exec))))
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Program")
    }
}

/// Which streams a client asked for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

/// A command that is about to be executed.
struct Run {
    command: Vec<String>,
    program: Option<Program>,
    over: CancellationToken,
    wanted: Wanted,
    errors_to: u8,
    closes: bool,
}

/// Answers a request to execute a command.
pub(super) fn exec(inner: &Arc<Inner>, parts: Parts, key: &Key, query: &Query) -> Result<Answer, Refusal> {
    let Target { name, container, .. } = socket::container(inner, key, query.text("container"))?;
    let command: Vec<String> = query.all("command").map(str::to_owned).collect();
    let wanted =
        Wanted { stdin: query.is_true("stdin"), stdout: query.is_true("stdout"), stderr: query.is_true("stderr") };
    let Some(program) = command.first() else {
        return Err(Refusal::bad_request("you must specify at least 1 command for the container"));
    };
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        return Err(Refusal::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let tty = query.is_true("tty");
    if tty && wanted.stderr {
        return Err(Refusal::bad_request("tty and stderr cannot both be true"));
    }
    let running = container.as_ref().and_then(|container| container.programs());
    let Programs { known, over } =
        running.ok_or_else(|| Refusal::new(500, format!("container not found (\"{name}\")")))?;
    let program = known.iter().find(|(known, _)| known == program).map(|(_, program)| program.clone());
    let (response, upgrade, closes) = socket::upgrade(parts)?;
    let run = Run { command, program, over, wanted, errors_to: if tty { STDOUT } else { STDERR }, closes };
    socket::run(inner, upgrade, move |socket| async move {
        match container {
            Some(container) => container.in_reach(execute(socket, run)).await,
            None => execute(socket, run).await,
        }
    });
    Ok(Answer::Stream(response))
}

async fn execute(socket: Socket, run: Run) {
    let Run { command, program, over, wanted, errors_to, closes } = run;
    let (mut sink, mut stream) = socket.split();
    let status = match program {
        None => not_found(&command),
        Some(Program(program)) => {
            let (sender, input) = mpsc::channel(WAITING);
            let (output, mut written) = mpsc::channel(WAITING);
            let process = program(FakeExec { command: command.clone(), input, output, errors_to });
            let read = take_input(&mut stream, wanted.stdin.then_some(sender), closes);
            let write = async {
                while let Some((channel, chunk)) = written.recv().await {
                    let asked = if channel == STDOUT { wanted.stdout } else { wanted.stderr };
                    if asked && !chunk.is_empty() && sink.send(frame(channel, &chunk)).await.is_err() {
                        // That the client is gone shows where it is read.
                        return std::future::pending().await;
                    }
                }
            };
            let code = tokio::select! {
                biased;
                () = over.cancelled() => KILLED,
                () = read => return,
                (code, ()) = async { tokio::join!(process, write) } => code,
            };
            status(&command, code)
        }
    };
    if sink.send(frame(STATUS, status.to_string().as_bytes())).await.is_ok() {
        // The client may have gone first.
        drop(sink.close().await);
    }
}

/// Hands a process what its client sends it, until the client is gone.
async fn take_input(stream: &mut SplitStream<Socket>, mut stdin: Option<mpsc::Sender<Bytes>>, closes: bool) {
    while let Some(Ok(message)) = stream.next().await {
        match message {
            Message::Binary(data) => match data.split_first() {
                Some((&STDIN, input)) if !input.is_empty() => {
                    if let Some(sender) = &stdin
                        && sender.send(Bytes::copy_from_slice(input)).await.is_err()
                    {
                        stdin = None;
                    }
                }
                Some((&CLOSE, [STDIN])) if closes => stdin = None,
                _ => {}
            },
            Message::Close(_) => return,
            _ => {}
        }
    }
}

fn status(command: &[String], code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    let command = command.join(" ");
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!(
            "command terminated with non-zero exit code: error executing command [{command}], exit code {code}"
        ),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

fn not_found(command: &[String]) -> Value {
    let program = command.first().map_or("", String::as_str);
    json!({
        "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
        "message": format!(
            "Internal error occurred: error executing command in container: failed to exec in container: failed to start exec: \
             OCI runtime exec failed: exec failed: unable to start container process: exec: \"{program}\": executable file \
             not found in $PATH: unknown"
        ),
    })
}
