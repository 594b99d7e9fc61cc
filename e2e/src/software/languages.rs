//! Language runtimes: processes, threads, shared memory, sockets, just-in-time compilers, and limits that they read.

use anyhow::ensure;

use super::script;
use crate::harness::Registry;
use crate::same;

const PYTHON: &str = r#"
cat > /tmp/all.py <<'END'
import asyncio, ctypes, multiprocessing as mp, socket, sqlite3, subprocess, sys, tempfile, threading
from multiprocessing import shared_memory

def square(n):
    return n * n

def mark(name):
    there = shared_memory.SharedMemory(name)
    there.buf[0] = 42
    there.close()

async def child():
    process = await asyncio.create_subprocess_exec("sh", "-c", "cat; exit 7", stdin=-1, stdout=-1)
    out, _ = await process.communicate(b"through a pipe")
    return out, process.returncode

if __name__ == "__main__":
    with mp.Pool(4) as pool:
        print(sum(pool.map(square, range(100))))
    memory = shared_memory.SharedMemory(create=True, size=1 << 20)
    worker = mp.Process(target=mark, args=(memory.name,))
    worker.start(); worker.join()
    print(memory.buf[0]); memory.close(); memory.unlink()
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: server.accept()[0].sendall(b"by TCP"), daemon=True).start()
    print(socket.create_connection(server.getsockname()).recv(16))
    print(asyncio.run(child()))
    with tempfile.NamedTemporaryFile() as file:
        db = sqlite3.connect(file.name)
        db.execute("create table t (n)"); db.executemany("insert into t values (?)", [(n,) for n in range(10)]); db.commit()
        print(db.execute("select sum(n) from t").fetchone())
    print(ctypes.CDLL(None).getpid() == 1 or subprocess.check_output(["ps", "-o", "args=", "1"]) != b"")
END
python3 /tmp/all.py
"#;

const PYTHON_SAYS: &str = "328350\n42\nb'by TCP'\n(b'through a pipe', 7)\n(45,)\nTrue\n";

const JAVA: &str = r#"
cat > /tmp/All.java <<'END'
import java.net.*;
import java.nio.file.*;
import java.util.stream.*;
public class All {
    static long fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
    public static void main(String[] args) throws Exception {
        System.out.println(fib(32));
        System.out.println(IntStream.range(0, 100000).parallel().asLongStream().sum());
        var server = new ServerSocket(0, 1, InetAddress.getLoopbackAddress());
        var thread = new Thread(() -> { try (var s = server.accept()) { s.getOutputStream().write(65); } catch (Exception e) { } });
        thread.start();
        try (var s = new Socket(server.getInetAddress(), server.getLocalPort())) { System.out.println(s.getInputStream().read()); }
        var process = new ProcessBuilder("sh", "-c", "echo from a child; exit 5").redirectErrorStream(true).start();
        System.out.print(new String(process.getInputStream().readAllBytes()));
        System.out.println(process.waitFor());
        Path file = Files.createTempFile("a", "b");
        Files.writeString(file, "kept");
        System.out.println(Files.readString(file));
        System.out.println(Runtime.getRuntime().maxMemory() <= 512L << 20);
    }
}
END
java /tmp/All.java
java -XshowSettings:system -version 2>&1 | grep -E '^ *(Memory Limit|Provider):' | sed 's/^ *//'
"#;

const JAVA_SAYS: &str = "2178309\n4999950000\n65\nfrom a child\n5\nkept\ntrue\n";

const NODE: &str = r#"
cat > /tmp/all.js <<'END'
const { Worker, isMainThread, parentPort } = require('worker_threads');
const http = require('http'), { execFile } = require('child_process'), crypto = require('crypto'), fs = require('fs');
if (!isMainThread) {
  let sum = 0; for (let i = 0; i < 1e7; i++) sum = (sum + i) % 1000003; parentPort.postMessage(sum);
} else {
  const worker = () => new Promise((done) => new Worker(__filename).on('message', done));
  const ask = (port) => new Promise((done) => http.get({ port, host: '127.0.0.1' }, (r) => r.on('data', (d) => done(String(d)))));
  const child = () => new Promise((done) => execFile('sh', ['-c', 'echo a child; exit 4'], (e, out) => done([out.trim(), e.code])));
  (async () => {
    console.log(await Promise.all([worker(), worker()]));
    const server = http.createServer((_, r) => r.end('served')).listen(0, '127.0.0.1', async () => {
      console.log(await ask(server.address().port)); server.close();
      console.log(await child());
      console.log(crypto.createHash('sha256').update('x').digest('hex').slice(0, 8));
      const watcher = fs.watch('/tmp', (_, name) => { console.log('watched', name); watcher.close(); });
      fs.writeFileSync('/tmp/seen', '');
    });
  })();
}
END
node /tmp/all.js
"#;

pub fn register(t: &mut Registry) {
    t.add(
        "python3: processes, shared memory, sockets, threads, SQLite",
        async |c| {
            same!(script(c, PYTHON).await?.ok()?, PYTHON_SAYS);
            Ok(())
        },
    );
    t.add(
        "a JVM compiles and runs threads, sockets and children, and sees its memory limit",
        async |c| {
            let output = script(c, JAVA).await?;
            let said = output.ok()?;
            ensure!(said.starts_with(JAVA_SAYS), "{output:?}");
            ensure!(said.contains("Memory Limit: 512.00M"), "{output:?}");
            Ok(())
        },
    );
    t.add("node: workers, HTTP, children, watched files", async |c| {
        let output = script(c, NODE).await?;
        let wanted = "[ 465, 465 ]\nserved\n[ 'a child', 4 ]\n2d711642\nwatched seen\n";
        same!(output.ok()?, wanted, "{output:?}");
        Ok(())
    });
}
