/**
 * Bundles the agent into one file and lays build/ out as packages lay out /usr/lib/weir: weir (the launcher), node,
 * weir.mjs and native/. It starts faster and takes less memory than the source tree, whose types are stripped at each
 * start.
 */
import { copyFileSync, rmSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import * as esbuild from 'esbuild'

const root = join(import.meta.dirname, '..')
const build = join(root, 'build')
const outfile = join(build, 'weir.mjs')
for (const name of ['weir', 'node', 'weir.mjs']) rmSync(join(build, name), { force: true })
copyFileSync(join(root, 'packaging/weir'), join(build, 'weir'))
symlinkSync(process.execPath, join(build, 'node'))
const result = await esbuild.build({
  entryPoints: [join(root, 'agent/main.ts')],
  outfile,
  bundle: true,
  platform: 'node',
  target: 'node24',
  format: 'esm',
  minifySyntax: true,
  minifyWhitespace: true,
  legalComments: 'linked',
  // CommonJS packages (pino, systeminformation) ask for require() and __dirname.
  banner: {
    js: "import { createRequire as weirRequire } from 'node:module'; const require = weirRequire(import.meta.url); const __dirname = import.meta.dirname; const __filename = import.meta.filename;",
  },
  metafile: true,
})
const bytes = Object.values(result.metafile.outputs).reduce((sum, output) => sum + output.bytes, 0)
console.log(`build/weir.mjs: ${(bytes / 1024).toFixed(0)} KiB`)
