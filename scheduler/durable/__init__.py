"""Work that must not be lost: a store on disk, and a worker that carries out what is in it. ADR 0013 says why so."""
