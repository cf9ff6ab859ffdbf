// The files of web/dist, byte for byte.

        .section .rodata
        .global toaster_web_index
        .global toaster_web_index_end
toaster_web_index:
        .incbin TOASTER_WEB_INDEX
toaster_web_index_end:

        .global toaster_web_script
        .global toaster_web_script_end
toaster_web_script:
        .incbin TOASTER_WEB_SCRIPT
toaster_web_script_end:

        .global toaster_web_style
        .global toaster_web_style_end
toaster_web_style:
        .incbin TOASTER_WEB_STYLE
toaster_web_style_end:

        .section .note.GNU-stack, "", %progbits
