/** An rpm package of a tree. */
import { cpSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { PackageOptions } from './deb.ts'
import { RPM_SCRIPTS } from './scripts.ts'
import { LICENCES, run, sourceDate, usualBits } from './tree.ts'

/** Builds the package and gives its path. No root is needed. */
export function buildRpm({ target, version, tree, output, level }: PackageOptions): string {
  usualBits()
  const work = join(output, `.rpm-${target.name}`)
  rmSync(work, { recursive: true, force: true })
  const files = join(work, 'files')
  cpSync(tree, files, { recursive: true, verbatimSymlinks: true, preserveTimestamps: true })
  // Where the zsh of others than Debian looks.
  const zsh = join(files, 'usr/share/zsh')
  renameSync(join(zsh, 'vendor-completions'), join(zsh, 'site-functions'))
  const [name, release] = [version.replaceAll('-', '~'), '1']
  const scripts = Object.entries(RPM_SCRIPTS).map(
    ([when, text]) => `%${when}\n${text.replaceAll('%', '%%')}\n`,
  )
  writeFileSync(
    join(work, 'weir.spec'),
    `Name: weir
Version: ${name}
Release: ${release}
Summary: sFlow telemetry agent for Linux hosts and switches
License: ${LICENCES}
Group: System Environment/Daemons
Requires(post): shadow-utils
# What is inside is for the agent alone, and what it needs is the C and C++ libraries.
AutoProv: no

%description
Takes packet samples, dropped packets and counters from the kernel and the switch ASIC behind it and streams them as
standard sFlow version 5 to any collector. Reads the configuration of Host sFlow's hsflowd.

%install
cp -a ${files}/. %{buildroot}/

${scripts.join('\n')}
%files
%defattr(-,root,root,-)
${fileList(files).join('\n')}
`,
  )
  const defines: Readonly<Record<string, string>> = {
    _topdir: join(work, 'top'),
    _dbpath: join(work, 'db'),
    _buildhost: 'localhost',
    _binary_payload: level === 0 ? 'w.ufdio' : `w${level}T0.xzdio`,
    _build_id_links: 'none',
    __os_install_post: '%{nil}',
    debug_package: '%{nil}',
    use_source_date_epoch_as_buildtime: '1',
    clamp_mtime_to_source_date_epoch: '1',
    source_date_epoch_from_changelog: '0',
    // Programs of another machine are looked at by a program of this one.
    _use_internal_dependency_generator: '1',
  }
  const options = Object.entries(defines).flatMap(([key, value]) => ['--define', `${key} ${value}`])
  run(
    'rpmbuild',
    ['-bb', '--quiet', '--target', `${target.rpm}-linux`, ...options, join(work, 'weir.spec')],
    {
      SOURCE_DATE_EPOCH: String(sourceDate()),
      HOME: work,
    },
  )
  const file = join(output, `weir-${name}-${release}.${target.rpm}.rpm`)
  renameSync(join(work, 'top/RPMS', target.rpm, `weir-${name}-${release}.${target.rpm}.rpm`), file)
  rmSync(work, { recursive: true })
  return file
}

/** Folders that are ours alone, and every file outside them. */
function fileList(files: string): string[] {
  const own = ['usr/lib/weir', 'usr/share/weir', 'usr/share/doc/weir']
  const lines = own.map(folder => `/${folder}`)
  for (const name of readdirSync(files, { recursive: true, encoding: 'utf8' }).sort()) {
    if (own.some(folder => name === folder || name.startsWith(`${folder}/`))) continue
    if (statSync(join(files, name)).isDirectory()) continue
    lines.push(name.startsWith('etc/') ? `%config(noreplace) /${name}` : `/${name}`)
  }
  return lines
}
