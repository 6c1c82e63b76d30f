//! A bare nginx reverse proxy in front of one upstream: the yardstick for what any hop costs.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    Failure,
    cpu::Charge,
    process::{Running, Scratch, bound_to_us, free_address, tail},
    target::Endpoint,
};

const PLACES: [&str; 3] = ["nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx"];
const START_DEADLINE: Duration = Duration::from_secs(10);

/// An installed nginx and what its build supports.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    program: &'static str,
    build: String,
}

impl Installed {
    /// Looks on `PATH` and where Debian puts it.
    pub(crate) fn find() -> Option<Self> {
        PLACES.into_iter().find_map(|program| {
            let output = Command::new(program).arg("-V").output().ok()?;
            Some(Self { program, build: String::from_utf8_lossy(&output.stderr).into_owned() })
        })
    }

    pub(crate) fn version(&self) -> &str {
        self.build.lines().next().unwrap_or("nginx").trim_start_matches("nginx version: ")
    }
}

/// A running nginx; its scratch directory outlives the process.
#[derive(Debug)]
pub(crate) struct Nginx {
    process: Running,
    pub(crate) endpoint: Endpoint,
    _scratch: Scratch,
}

impl Nginx {
    pub(crate) fn start(installed: &Installed, upstream: &Endpoint) -> Result<Self, Failure> {
        let scratch = Scratch::new("nginx")?;
        let address = free_address()?;
        let config = scratch.join("nginx.conf");
        fs::write(&config, configuration(installed, &scratch, address, upstream.address))?;
        let log = scratch.join("stderr.log");
        let mut process = Running::spawn(
            bound_to_us(Path::new(installed.program))
                .arg("-p")
                .arg(scratch.path())
                .arg("-c")
                .arg(&config)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(&log)?),
        )?;
        let deadline = Instant::now() + START_DEADLINE;
        while TcpStream::connect(address).is_err() {
            if process.ended().is_some() || Instant::now() >= deadline {
                return Err(format!("nginx does not listen on {address}:\n{}", tail(&log)).into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        let endpoint = Endpoint { address, ..upstream.clone() };
        Ok(Self { process, endpoint, _scratch: scratch })
    }

    pub(crate) fn charge(&self) -> Charge {
        Charge::process(self.process.id())
    }
}

fn configuration(installed: &Installed, scratch: &Scratch, listen: SocketAddr, upstream: SocketAddr) -> String {
    let dir = scratch.path().display();
    // Workers of a root master would otherwise be unable to write below the scratch directory.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    // Debian's defaults for these lie in /var/lib/nginx, which only root can make.
    let unused: String = ["fastcgi", "uwsgi", "scgi"]
        .into_iter()
        .filter(|module| !installed.build.contains(&format!("--without-http_{module}_module")))
        .map(|module| format!("  {module}_temp_path {dir}/{module};\n"))
        .collect();
    format!(
        "{user}
daemon off;
worker_processes auto;
pid {dir}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
{unused}  tcp_nodelay on;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  upstream fast {{
    server {upstream};
    keepalive 512;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
  }}
  server {{
    listen {listen} backlog=1024;
    location / {{
      proxy_pass http://fast;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_buffering on;
    }}
  }}
}}
"
    )
}
