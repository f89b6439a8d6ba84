"""How does the AMQP broker reach its servers?"""
