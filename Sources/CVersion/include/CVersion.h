#pragma once

/// The release, as `cfsoci --version` prints it.
const char *_Nonnull cfsoci_release(void);

/// The commit that the program was built from, in hex; empty if the build did not say. Package.swift takes it from the environment.
const char *_Nonnull cfsoci_commit(void);
