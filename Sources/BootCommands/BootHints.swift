package import ComposefsOCI

/// What to do about an error: the text that follows the error's own, with its punctuation.
package func hint(for error: BootError) -> String? {
    switch error {
    case .nothingToBoot, .noSuchResource: "; `cfsoci boot entries IMAGE` lists what it has"
    case .unifiedWithArguments: "; leave out --cmdline, or choose a kernel with --kernel"
    case .attemptsWithAddons: "; leave out --tries"
    case .entryExists: "; choose another name with --entry, or remove it first"
    case .noSpace: "; `cfsoci boot gc` removes what no deployment needs, and `cfsoci boot remove` a deployment"
    case .noPartition: "; name it with --boot"
    case .noDeployment: "; `cfsoci boot list` lists them"
    case .severalDeployments: "; give more of the identifier"
    case .deploymentIsPinned: "; `cfsoci boot pin --undo` changes that, or use --force"
    case .deploymentIsLast, .deploymentHasData: "; --force removes it anyway"
    case .deploymentHasMount: "; unmount it first"
    case .etcChanged: "; repeat the command"
    case .etcUnknown, .etcDamaged: "; --new-etc starts with the image's own /etc, and leaves the local changes where they are"
    case .noEntry: "; `cfsoci boot prepare` makes one"
    case .otherSysroot: "; name the repository with --repo, or leave out --sysroot"
    default: nil
    }
}

/// As above.
package func hint(for error: UnifiedKernelError) -> String? {
    switch error {
    case .noProgram: "; install systemd-ukify or binutils"
    case .noStub: "; install systemd-boot-efi, or name one with --stub"
    case .noOSRelease: "; name one with --os-release"
    case .program: "; its message is above"
    default: nil
    }
}
