/**
 * Bundles the agent into one file. Run as a program it lays build/ out as packages lay out /usr/lib/weir: weir (the
 * launcher), node, weir.mjs and native/. It starts faster and takes less memory than the source tree, whose types are
 * stripped at each start.
 */
import { copyFileSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { basename, join } from 'node:path'
import * as esbuild from 'esbuild'

const root = join(import.meta.dirname, '..')

/** What became part of a bundle. */
export interface Bundle {
  readonly bytes: number
  /** Folders under node_modules whose code is in it, sorted. */
  readonly packages: readonly string[]
}

/** Of systeminformation the agent asks for the machine and its system; the rest is a third of a megabyte. */
const USED = ['index', 'util', 'system', 'osinfo']

/** What pino writes with and hides fields with. The agent's logger writes by itself (agent/health/log.ts), and hides none. */
const UNUSED = ['@pinojs/redact', 'atomic-sleep', 'on-exit-leak-free', 'sonic-boom', 'thread-stream'].map(
  name => `node_modules/${name}`,
)

const withoutUnused: esbuild.Plugin = {
  name: 'without-unused',
  setup(build) {
    // pino asks whether what it is given is one of them.
    build.onLoad({ filter: new RegExp(`/(${UNUSED.join('|')})/`) }, () => ({
      contents: 'module.exports = class {}',
    }))
    build.onLoad({ filter: /node_modules\/systeminformation\/lib\/[^/]+\.js$/ }, ({ path }) =>
      USED.includes(basename(path, '.js')) ? undefined : { contents: 'module.exports = {}' },
    )
  },
}

/** The files of the page (agent/web/assets.ts), which the bundle carries. */
function page(): Readonly<Record<string, string>> {
  const folder = join(root, 'agent/web/page')
  return Object.fromEntries(
    readdirSync(folder)
      .sort()
      .map(name => [name, readFileSync(join(folder, name), 'utf8')]),
  )
}

/** Writes the bundle to `outfile`. The same sources give the same bytes wherever they lie. */
export async function bundle(outfile: string): Promise<Bundle> {
  const result = await esbuild.build({
    absWorkingDir: root,
    entryPoints: ['agent/main.ts'],
    outfile,
    bundle: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    minify: true,
    // Without the names of functions, which take 4 %: errors have theirs as values, and esbuild makes a source map of the
    // same bundle for whoever has a stack trace to read.
    // The packages' licences are shipped as files of their own.
    legalComments: 'none',
    // CommonJS packages (pino, systeminformation) ask for require() and __dirname.
    banner: {
      js: "import { createRequire as weirRequire } from 'node:module'; const require = weirRequire(import.meta.url); const __dirname = import.meta.dirname; const __filename = import.meta.filename;",
    },
    metafile: true,
    define: { WEIR_PAGE: JSON.stringify(page()) },
    plugins: [withoutUnused],
  })
  const inputs = Object.values(result.metafile.outputs).flatMap(output => Object.entries(output.inputs))
  const packages = inputs.flatMap(([path, { bytesInOutput }]) => {
    const folder = /^(?:.*\/)?(node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1]
    return folder === undefined || bytesInOutput === 0 || UNUSED.includes(folder) ? [] : [folder]
  })
  return { bytes: readFileSync(outfile).length, packages: [...new Set(packages)].sort() }
}

if (import.meta.main) {
  const build = join(root, 'build')
  for (const name of ['weir', 'node', 'weir.mjs', 'weir.mjs.LEGAL.txt'])
    rmSync(join(build, name), { force: true })
  copyFileSync(join(root, 'packaging/weir'), join(build, 'weir'))
  symlinkSync(process.execPath, join(build, 'node'))
  const { bytes } = await bundle(join(build, 'weir.mjs'))
  console.log(`build/weir.mjs: ${(bytes / 1024).toFixed(0)} KiB`)
}
