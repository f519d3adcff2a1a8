package import ArgumentParser
import ComposefsLinuxSystem
package import ComposefsOCI

/// Options of commands that store objects: built-in signatures of fs-verity.
package struct SigningOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp("Sign for the kernel what is stored, with this private key (PEM or DER).", valueName: "file"),
        completion: .file())
    package var signKey: ByteString?

    @Option(
        help: ArgumentHelp("The key's X.509 certificate (PEM or DER); the kernel needs it in its .fs-verity keyring.", valueName: "file"),
        completion: .file())
    package var signCert: ByteString?

    package init() {}

    package func validate() throws {
        guard (signKey == nil) == (signCert == nil) else { throw ValidationError("--sign-key and --sign-cert need each other") }
    }

    /// Reads key and certificate and checks them, before anything is stored.
    package func signer() throws -> (any VeritySigner)? {
        guard let signKey, let signCert else { return nil }
        return try readSigner(keyFile: signKey, certificateFile: signCert)
    }
}

extension GlobalOptions {
    /// Warns if the kernel does not check signatures; called once it is clear that the command can sign.
    package func warnOfUncheckedSignatures() {
        guard Host.veritySignatures() == .unchecked else { return }
        warn("this kernel was built without CONFIG_FS_VERITY_BUILTIN_SIGNATURES: it stores signatures but does not check them")
    }
}
