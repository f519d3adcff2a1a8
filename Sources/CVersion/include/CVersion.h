#pragma once

/// The commit that the program was built from, in hex; empty if the build did not say. Package.swift takes it from the environment.
const char *_Nonnull cfsoci_commit(void);
