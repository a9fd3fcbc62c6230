/** Writes the pages that are made from tables in the source: the wire format and the configuration. */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { wireReference } from '../agent/wire/sflow/reference.ts'
import './config-docs.ts'

writeFileSync(join(import.meta.dirname, '../docs/wire.md'), wireReference())
console.log('wrote docs/wire.md')
