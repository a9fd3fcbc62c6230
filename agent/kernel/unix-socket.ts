import { chmodSync, chownSync, lstatSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { connect, type Server } from 'node:net'
import { dirname } from 'node:path'

/** A server at a Unix socket: nobody else's is taken, and ours has its permissions from the first moment. */

/** The kernel's struct sockaddr_un has room for so many bytes and a zero (unix(7)). */
const PATH_BYTES = 107
/** A socket file is asked for so long whether somebody listens to it. */
const PROBE_MS = 2000

/**
 * Has the server listen at a path, which the owner alone may use, unless `share` lets others. A socket that nobody listens
 * to any more is taken over; fails with a message that names the path when somebody does, when something else is there,
 * or when it cannot be made. Gives a function that removes the socket, unless another has come in its place.
 */
export async function listenAtPath(
  server: Server,
  path: string,
  share: (path: string) => void = () => {},
): Promise<() => void> {
  // Made under another name, it is nobody's before its permissions are right, and is there at once when they are.
  const making = `${path}.${process.pid}`
  if (Buffer.byteLength(making) > PATH_BYTES) {
    const most = PATH_BYTES - `.${process.pid}`.length
    throw new Error(`${path}: longer than the ${most} bytes that the name of a socket may have here`)
  }
  await makeRoom(path)
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 })
  } catch (error) {
    throw new Error(`${path}: ${(error as Error).message}`)
  }
  const mask = process.umask(0o177)
  try {
    rmSync(making, { force: true })
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen({ path: making }, resolve)
      // The name is there when this returns.
      process.umask(mask)
    })
    share(making)
    renameSync(making, path)
  } catch (error) {
    server.close()
    throw new Error(`${path}: ${(error as Error).message}`)
  } finally {
    process.umask(mask)
  }
  const inode = inodeOf(path)
  return () => {
    if (inodeOf(path) === inode) rmSync(path, { force: true })
  }
}

/** Lets the group `gid` connect, beside the owner. */
export function openToGroup(path: string, gid: number): void {
  chownSync(path, -1, gid)
  chmodSync(path, 0o660)
}

/** Removes a socket that nobody listens to; fails when somebody does, or when it is no socket. */
async function makeRoom(path: string): Promise<void> {
  const inode = inodeOf(path)
  if (inode === undefined) return
  if (!lstatSync(path).isSocket()) throw new Error(`${path}: something else than a socket is there`)
  const isAlive = await new Promise<boolean>((resolve, reject) => {
    const probe = connect(path)
    // One that is too busy to accept is alive.
    const timer = setTimeout(() => resolve(true), PROBE_MS)
    probe.on('connect', () => {
      resolve(true)
      probe.destroy()
    })
    probe.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT') resolve(false)
      else if (error.code === 'EAGAIN') resolve(true)
      else reject(new Error(`${path}: ${error.message}`))
    })
    probe.on('close', () => clearTimeout(timer))
  })
  if (isAlive) throw new Error(`${path}: another agent listens there`)
  if (inodeOf(path) === inode) rmSync(path, { force: true })
}

function inodeOf(path: string): bigint | undefined {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false })?.ino
}
