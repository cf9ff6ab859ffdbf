// The files of models/builtin, byte for byte.

        .section .rodata
        .balign 64
        .global toaster_builtin_weights
        .global toaster_builtin_weights_end
toaster_builtin_weights:
        .incbin TOASTER_BUILTIN_WEIGHTS
toaster_builtin_weights_end:

        .balign 64
        .global toaster_builtin_config
        .global toaster_builtin_config_end
toaster_builtin_config:
        .incbin TOASTER_BUILTIN_CONFIG
toaster_builtin_config_end:

        .section .note.GNU-stack, "", %progbits
