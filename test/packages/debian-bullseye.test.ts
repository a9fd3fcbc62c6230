import { testsOn } from './debian.ts'

testsOn('bullseye')
